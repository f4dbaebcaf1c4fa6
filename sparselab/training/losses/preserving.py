"""Losses of a masked network against itself without masks: what a search for a mask may ask to be preserved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.data_types import Classes, NextTokens
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from sparselab.training.losses.context import StepContext


class Preserving(ExtraLoss):
    """Base: in place of the task's loss (``task_share`` of it stays), at one more forward pass of the same batch.

    The dense network is the same one with its masks off, in training mode: its batch norms use the batch's statistics and
    remember none of them. Of a method that searches by draws it is the loss of the search: afterwards the task's is back.
    """

    needs_dense_weights = True
    taught_by: str | None = "dense"
    of_search = True

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="factor of the extra loss in the sum, at least 0")
        task_share: float = Field(ge=0, description="factor of the task's own loss, at least 0")

    options: Options

    def share_of_task_loss(self) -> float:
        return self.options.task_share


@LOSSES.register("dense_kl")
class DenseKL(Preserving):
    """Divergence of the outputs: ``reverse`` is KL(sparse || dense), ``forward`` KL(dense || sparse) (arXiv 2512.07142).

    Of probabilities of classes, averaged over examples (of text, over the tokens that count). Outputs that are numbers stand
    for normal distributions of variance 1, whose divergence either way is half the squared distance.
    """

    class Options(Preserving.Options):
        direction: Literal["reverse", "forward"] = Field(description="reverse or forward")

    options: Options

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        dense = context.look_dense(batch[0])[0]
        if not isinstance(context.data.targets, (Classes, NextTokens)):
            return 0.5 * (logits.float() - dense.float()).flatten(1).square().sum(1).mean()
        return divergence(logits, dense, self.options.direction, context.counted(batch))


def divergence(sparse: Tensor, dense: Tensor, direction: str, counted: Tensor | None = None) -> Tensor:
    """KL(sparse || dense) where ``direction`` is ``reverse``, else KL(dense || sparse), of logits (..., classes): a scalar.

    counted: bool, the shape without classes; what is False is left out of the mean.
    """
    p, q = (logits.float().log_softmax(-1).flatten(0, -2) for logits in (sparse, dense))
    if direction == "forward":
        p, q = q, p
    each = (p.exp() * (p - q)).sum(-1)
    if counted is None:
        return each.mean()
    return (each * (counted.flatten() / counted.sum())).sum()  # a product: nothing waits for a count


@LOSSES.register("dense_loss")
class DenseLoss(Preserving):
    """|L_sparse / L_dense - 1| of the task's loss of a micro-batch (``deltaloss`` of arXiv 2512.07142)."""

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        dense = context.criterion(context.look_dense(batch[0])[0], batch)
        return (context.criterion(logits, batch) / dense - 1).abs()


@LOSSES.register("dense_features")
class DenseFeatures(Preserving):
    """Mean over layers of the squared distance between standardised features (``msefeature`` of arXiv 2512.07142).

    Features are the outputs of the blocks and, last, the probabilities of the classes, each standardised by example.
    """

    needs_states = True

    def prepare(self, context: StepContext) -> None:
        context.watch_states()

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        dense, states = context.look_dense(batch[0])
        assert context.states is not None and states is not None  # prepare has seen to that
        ours, theirs = [*context.states.blocks, logits], [*states.blocks, dense]
        if isinstance(context.data.targets, (Classes, NextTokens)):
            ours[-1], theirs[-1] = ours[-1].float().softmax(-1), theirs[-1].float().softmax(-1)
        return distance([x.flatten(1) for x in ours], [x.flatten(1) for x in theirs])


class OfGradients(Preserving):
    """Base: of the gradients of the task's loss in the dense weights theta, of which a draw shows m * theta.

    They are m dL/d(m theta), so both factors depend on the draw; both are differentiated. A gradient is one pass forward and
    one backward (3 in the account); its derivative takes every product of these twice (6).
    """

    needs_drawn_masks = True
    taught_by = None
    own_passes = 9

    def gradients(
        self, context: StepContext, batch: tuple[Tensor, ...], dense: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of the task's loss.

        Args:
            context: the update
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives
            dense: of the network without masks, in place of masks as drawn

        Returns:
            (of the weights with masks, of all other parameters); those with masks are differentiable.
        """
        import torch

        from sparselab.weights.probe import differentiable_twice

        network, masked = context.network, {id(param): values for param, values in context.masked}
        params = [param for param in network.parameters() if param.requires_grad]
        with torch.enable_grad(), context.aside(dense), differentiable_twice(network):
            loss = context.criterion(context.again(batch[0]), batch)
            found = torch.autograd.grad(loss, params, create_graph=not dense, allow_unused=True, materialize_grads=True)
        with_masks, others = [], []
        for param, gradient in zip(params, found, strict=True):
            if id(param) not in masked:
                others.append(gradient.float())
            elif dense:
                with_masks.append(gradient.float())
            else:
                theta = masked[id(param)]
                gates = torch.where(theta == 0, 0.0, param / torch.where(theta == 0, 1.0, theta))
                with_masks.append((gates * gradient).float())
        return with_masks, others


@LOSSES.register("gradient_norm")
class GradientNorm(OfGradients):
    """Minus the L2 norm of the gradient in all parameters (``gradnorm`` of arXiv 2512.07142): the search makes it large."""

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        import torch

        parts = [part for group in self.gradients(context, batch, dense=False) for part in group]
        return -torch.stack([part.square().sum() for part in parts]).sum().clamp(min=1e-30).sqrt()


@LOSSES.register("dense_gradients")
class DenseGradients(OfGradients):
    """Mean over layers of the squared distance between standardised gradients (``gradmatch`` of arXiv 2512.07142).

    Of the weights that have masks, each layer's standardised over all its entries.
    """

    own_passes = 12  # the dense gradient is not differentiated

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        dense, sparse = (self.gradients(context, batch, dense=each)[0] for each in (True, False))
        return distance([x.flatten()[None] for x in sparse], [x.flatten()[None] for x in dense])


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """The mean over layers of the mean squared distance of rows that have mean 0 and standard deviation 1: a scalar.

    ours, theirs: for each layer (rows, features), the same shapes.
    """
    import torch

    def standard(x: Tensor) -> Tensor:
        x = x.float()
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-9)

    return torch.stack([(standard(a) - standard(b)).square().mean() for a, b in zip(ours, theirs, strict=True)]).mean()
