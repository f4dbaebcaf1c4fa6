"""Approximate unlearning in one step: influence functions and Fisher forgetting.

Both as in OPTML-Group/Unlearn-Sparse (arXiv 2304.04934): unlearn/Wfisher.py and unlearn/fisher.py. The network computes with
weight times mask there, so gradients of pruned weights are zero in all that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.seeds import derive_seed
from sparselab.training.edits.edit import EDITS, Edit, Editing

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 16  # examples whose gradients are held at once
CURVATURE = 1e3  # largest 1 / F
CURVATURE_OF_HEAD = 1e2
WIDER = 10.0  # factor of the variance in the head, biases and norms
EPSILON = 1e-8
FORGOTTEN_VARIANCE = 1e-4  # of the head's row of a class that is forgotten, before the factor of the head


class Forgetting(Edit):
    """Base: needs a part of the data that is to be forgotten."""

    def issues(self, data: DataSpec) -> list[Issue]:
        if "forget" in data.parts:
            return []
        return [Issue(f"edit={self.name}", "nothing is to be forgotten", "write dataset.forget=class:0, say")]


@EDITS.register("influence")
class Influence(Forgetting):
    """IU: theta += alpha * H^-1 (g_f - g_r), with WoodFisher's estimate of the inverse from single retained examples.

    g_f is the summed gradient on what is forgotten over n_f + n_r, g_r the one on what is retained times n_f over
    (n_f + n_r) n_r: together the change that removing the forgotten makes to the mean loss.
    """

    class Options(Options):
        alpha: float = Field(gt=0, description="size of the step, above 0; the paper tunes it")
        samples: int = Field(ge=1, description="retained examples of the estimate, at least 1")

    version = 2  # gradients of pruned weights are zero
    options: Influence.Options

    def apply(self, editing: Editing) -> None:
        import torch

        gone, stays = editing.sizes["forget"], editing.sizes["retain"]
        forget, retain = (total_gradient(editing, part) for part in ("forget", "retain"))
        direction = forget / (gone + stays) - retain * (gone / ((gone + stays) * stays))
        gradients = (g for g in single_gradients(editing, "retain", self.options.samples))
        change = woodfisher(gradients, direction, self.options.samples)
        parameters = list(editing.network.parameters())
        for parameter, part in zip(parameters, torch.split(change, [p.numel() for p in parameters]), strict=True):
            parameter.add_(part.view_as(parameter), alpha=self.options.alpha)


def woodfisher(gradients: Iterable[Tensor], vector: Tensor, count: int) -> Tensor:
    """An estimate of H^-1 ``vector`` from single gradients (n,) in turn (Singh & Alistarh 2020, arXiv 2004.14340).

    The recursion is the released code's: k = v, o = g_1; for each further g, k -= (k.g) / (N + o.g) o and then
    o -= (o.g) / (N + o.g) o, with N = ``count``.
    """
    k, o = vector.clone(), None
    for gradient in gradients:
        if o is None:
            o = gradient.clone()
            continue
        shared = o @ gradient
        k -= (k @ gradient) / (count + shared) * o
        o -= shared / (count + shared) * o
    return k


@EDITS.register("fisher")
class Fisher(Forgetting):
    """FF: noise on every weight, the more the less the retained data cares about it (Golatkar et al. 2020, arXiv 1911.04933).

    Variance alpha / (F + 1e-8), where 1 / F counts at most 1e3 (1e2 in the head), is averaged over the second dimension of a
    weight: over its inputs, and for a convolution over the input channels of each kernel position. It is ten times as large in
    the head, in biases and in norms. F is the diagonal of the Fisher information on retained examples, labels drawn from the
    network's own softmax (in expectation); a pruned weight has F = 0. For a class, the head's row of it becomes noise around
    zero, of variance 1e-4 times the ten of the head.
    """

    class Options(Options):
        alpha: float = Field(gt=0, description="factor of the variance, above 0; the paper tunes it")
        samples: int = Field(ge=1, description="retained examples of the Fisher information, at least 1")
        batch: int = Field(
            ge=1, description="examples whose mean gradient is squared: 1 is the definition, the release has 32"
        )

    version = (
        2  # gradients of pruned weights are zero; convolutions by kernel position; the forgotten row ten times as noisy
    )
    options: Fisher.Options

    def apply(self, editing: Editing) -> None:
        import torch

        forgotten = forgotten_class(editing)
        for name, information in information_of(editing, self.options.samples, self.options.batch).items():
            parameter, head = editing.network.get_parameter(name), name in editing.head
            gone = forgotten if head else None
            mean, variance = noise_of(parameter, information, head, gone, self.options.alpha)
            generator = torch.Generator().manual_seed(derive_seed(editing.seed, "edit", name))
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.copy_(mean + variance.sqrt() * noise)


def noise_of(
    parameter: Tensor, information: Tensor, head: bool, forgotten: int | None, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return the normal law of what a parameter becomes.

    Args:
        parameter: (*shape)
        information: (*shape), the diagonal of Fisher's
        head: whether it is the last layer's
        forgotten: row of the head that is erased; None: none
        alpha: strength of the noise

    Returns:
        (mean, variance) of what the parameter becomes, (*shape) each.
    """
    variance = alpha * (1 / (information + EPSILON)).clamp(max=CURVATURE_OF_HEAD if head else CURVATURE)
    if parameter.ndim > 1:
        variance = variance.mean(1, keepdim=True).expand_as(parameter).clone()
    mean = parameter.clone()
    if forgotten is not None:
        mean[forgotten] = 0
        variance[forgotten] = FORGOTTEN_VARIANCE
    return mean, variance * (WIDER if head or parameter.ndim < 2 else 1.0)


def forgotten_class(editing: Editing) -> int | None:
    """The class that is forgotten as a whole; None where examples of several are."""
    labels = {int(label) for _, batch in editing.parts["forget"]() for label in batch.unique()}
    kept = {int(label) for _, batch in editing.parts["retain"]() for label in batch.unique()}
    return labels.pop() if len(labels) == 1 and not labels & kept else None


def total_gradient(editing: Editing, part: str) -> Tensor:
    """Gradient of the summed cross-entropy on a part, as one vector (n,)."""
    import torch

    parameters = list(editing.network.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    for inputs, labels in editing.parts[part]():
        gradients = batch_gradient(editing, inputs, labels, "sum")
        total += torch.cat([gradient.flatten() for gradient in gradients.values()])
    return total


def drawn(editing: Editing, part: str, count: int, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """At most ``count`` examples of a part, drawn by the seed, in chunks of ``size`` of which the last may be shorter."""
    import torch

    generator = torch.Generator().manual_seed(derive_seed(editing.seed, "edit", part))
    chosen = torch.zeros(editing.sizes[part], dtype=torch.bool)
    chosen[torch.randperm(len(chosen), generator=generator)[:count]] = True
    at, rest = 0, None
    for inputs, labels in editing.parts[part]():
        wanted = chosen[at : at + len(labels)].to(inputs.device)
        at += len(labels)
        found = (inputs[wanted], labels[wanted])
        if rest is not None:
            found = (torch.cat([rest[0], found[0]]), torch.cat([rest[1], found[1]]))
        whole = len(found[1]) // size * size
        for first in range(0, whole, size):
            yield found[0][first : first + size], found[1][first : first + size]
        rest = (found[0][whole:], found[1][whole:])
    if rest is not None and len(rest[1]):
        yield rest


def batch_gradient(editing: Editing, inputs: Tensor, labels: Tensor, reduction: str) -> dict[str, Tensor]:
    """Gradient of the cross-entropy of a batch, its ``reduction`` "mean" or "sum", by parameter.

    Args:
        editing: the network and its data
        inputs: (n, c, h, w) float
        labels: (n,) int64
        reduction: ``mean`` or ``sum`` over the batch

    Returns:
        (*parameter) by name.
    """
    import torch
    from torch.nn import functional as F

    named = dict(editing.network.named_parameters())
    with torch.enable_grad():
        loss = F.cross_entropy(editing.logits(editing.network, inputs), labels, reduction=reduction)
        gradients = torch.autograd.grad(loss, list(named.values()))
    return kept(editing, dict(zip(named, gradients, strict=True)))


def kept(editing: Editing, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take pruned weights out of gradients.

    Args:
        editing: the network and its masks
        gradients: (..., *shape) by parameter

    Returns:
        The same, zero where a weight is pruned.
    """
    return {name: g * editing.masks[name] if name in editing.masks else g for name, g in gradients.items()}


def per_example(editing: Editing, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Gradients of the cross-entropy of every single example: (n, *shape) by parameter.

    Args:
        editing: the network and its data
        inputs: (n, c, h, w) float
        labels: (n,) int64

    Returns:
        (n, *parameter) by name.
    """
    import torch
    from torch.nn import functional as F

    parameters = {name: p.detach() for name, p in editing.network.named_parameters()}
    buffers = dict(editing.network.named_buffers())

    class Called(torch.nn.Module):
        """The network under its own names, called as the family calls it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = editing.network

        def forward(self, x: Tensor) -> Tensor:
            return editing.logits(self.network, x)

    called = Called()

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        state = {f"network.{name}": value for name, value in {**weights, **buffers}.items()}
        logits = torch.func.functional_call(called, state, (x[None],))
        return F.cross_entropy(logits, y[None])

    return kept(editing, torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels))


def single_gradients(editing: Editing, part: str, count: int) -> Iterator[Tensor]:
    """Gradients of single examples as vectors (n,), the parameters in their order."""
    import torch

    for inputs, labels in drawn(editing, part, count):
        yield from torch.cat([g.flatten(1) for g in per_example(editing, inputs, labels).values()], 1)


def information_of(editing: Editing, count: int, batch: int = 1) -> dict[str, Tensor]:
    """The diagonal of the Fisher information on retained examples: E_x E_{y ~ p(.|x)} (d log p / d theta)^2.

    With ``batch`` above 1 the released code's: for each batch and label, the gradient of the mean loss is squared and weighed
    by the batch's mean probability of the label; the mean over batches is up to ``batch`` times smaller than the definition.
    """
    import torch

    totals = {name: torch.zeros_like(p) for name, p in editing.network.named_parameters()}
    seen = 0
    for inputs, _ in drawn(editing, "retain", count, CHUNK if batch == 1 else batch):
        probabilities = editing.logits(editing.network, inputs).softmax(-1)
        seen += len(inputs) if batch == 1 else 1
        for label, probability in enumerate(probabilities.unbind(1)):
            labels = torch.full((len(inputs),), label, device=inputs.device)
            if batch == 1:
                squares = {name: g.square() for name, g in per_example(editing, inputs, labels).items()}
                found = {name: torch.tensordot(probability, square, 1) for name, square in squares.items()}
            else:
                mean = batch_gradient(editing, inputs, labels, "mean")
                found = {name: probability.mean() * g.square() for name, g in mean.items()}
            for name, value in found.items():
                totals[name] += value
    return {name: total / max(seen, 1) for name, total in totals.items()}
