"""Measurements before training: copies of the network, examples, and the loss between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, islice, repeat

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed, seed_torch

Batch = tuple[Tensor, Tensor]


class Probe:
    """Whole batches, in float32, the same on every rank: what is measured depends on the seed and on nothing else.

    network: the one that is about to be trained; only copies of it are ever handed out.
    loss:    (network, batch, temperature) -> mean loss of the batch's logits divided by the temperature, a scalar.
    loader:  a fresh iterator over the GLOBAL batches of an epoch, each as training will see it, ``(inputs, targets)``;
             each call starts the first epoch again.
    classes: how many classes targets tell apart.
    outputs: (network, inputs) -> what the network puts out, before any loss.
    seen:    batch -> the batch as the network and the loss see it.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[nn.Module, Batch, float], Tensor],
        loader: Callable[[], Iterator[Batch]],
        classes: int,
        seed: int,
        outputs: Callable[[nn.Module, Tensor], Tensor] | None = None,
        seen: Callable[[Batch], Batch] = lambda batch: batch,
    ):
        self.network = network
        self.loss = loss
        self.loader = loader
        self.classes = classes
        self.seed = seed
        self.outputs = outputs
        self.seen = seen

    def copy(self) -> nn.Module:
        """A copy in training mode, so that neither weights nor running statistics of the network are touched.

        All of its parameters have gradients, whatever of the network is frozen.
        """
        twin = copy.deepcopy(self.network).train().requires_grad_(True)
        for module in twin.modules():
            module.__dict__.pop("forward", None)  # statistics shared by processes: here each has the whole batch
        return twin

    def reinitialise(self, network: nn.Module, also: set[str]) -> None:
        """Xavier-normal weights in all linear layers and convolutions, and in the parameters named in ``also``."""
        layers = (nn.Linear, nn.modules.conv._ConvNd)
        names = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, layers)} | also
        for name in sorted(names):
            # Drawn on the CPU, addressed by the name: every device and rank gets the same.
            weight = torch.empty(network.get_parameter(name).shape)
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "reinitialise", name))
            nn.init.xavier_normal_(weight, generator=generator)
            network.get_parameter(name).data.copy_(weight)

    def batches(self, count: int) -> list[Batch]:
        """The first ``count`` batches of training; those of the first epoch again where it has fewer."""
        return list(islice(chain.from_iterable(self.loader() for _ in repeat(None)), count))

    def per_class(self, count: int, halves: bool = False) -> list[Batch]:
        """The first ``count`` examples of each class in the order of training, in batches of its size.

        With ``halves`` they are sorted by class and cut in two.
        """
        classes = self.classes
        taken = torch.zeros(classes, dtype=torch.int64)
        parts: list[Batch] = []
        size = 0
        for inputs, targets in self.loader():
            size = size or len(targets)
            labels = targets.argmax(-1) if targets.is_floating_point() else targets  # mixup gives shares of classes
            rank = _rank_in_class(labels.cpu(), classes) + taken[labels.cpu()]
            wanted = (rank < count).to(inputs.device)
            parts.append((inputs[wanted], targets[wanted]))
            taken += torch.bincount(labels.cpu(), minlength=classes)
            if bool((taken >= count).all()):
                break
        else:
            rare = int(taken.argmin())
            raise RunFailed(
                f"method.per_class={count}: an epoch has {int(taken[rare])} examples of class {rare} — at most that many"
            )
        inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
        if halves:
            order = (targets.argmax(-1) if targets.is_floating_point() else targets).argsort(stable=True)
            half = len(order) // 2
            return [(inputs[part], targets[part]) for part in (order[:half], order[half:])]
        sizes = in_parts(len(targets), size)
        return list(zip(inputs.split(sizes), targets.split(sizes), strict=True))

    def measured(self, network: nn.Module, batch: Batch, index: int) -> Tensor:
        """The mean loss of a batch, a scalar; with the same ``index`` dropout drops the same."""
        seed_torch(derive_seed(self.seed, "probe", index))
        return self.loss(network, batch, 1.0)

    def wrong(self, network: nn.Module, batch: Batch, index: int) -> Tensor:
        """The share of a batch's examples that the network takes for another class, a scalar."""
        assert self.outputs is not None
        seed_torch(derive_seed(self.seed, "probe", index))
        inputs, targets, *_ = self.seen(batch)
        logits = self.outputs(network, inputs)
        labels = targets.argmax(-1) if targets.is_floating_point() else targets  # mixup gives shares of classes
        return (logits.argmax(-1) != labels).double().mean()

    def gradients(
        self,
        network: nn.Module,
        parameters: list[nn.Parameter],
        batches: list[Batch],
        temperature: float = 1.0,
        along: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Gradient of the mean loss over all examples, by parameter; with ``along`` the Hessian times that vector.

        Args:
            network: a copy of the cell's network
            parameters: of ``network``, those of the gradient
            batches: whole batches, each weighed by its examples
            temperature: the logits are divided by it
            along: a vector, one part for each parameter

        Returns:
            A tensor of its shape for each parameter.
        """
        total = sum(len(batch[0]) for batch in batches)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for index, batch in enumerate(batches):
            seed_torch(derive_seed(self.seed, "probe", index))  # dropout
            with torch.enable_grad(), differentiable_twice(network):
                loss = self.loss(network, batch, temperature) * (len(batch[0]) / total)
                parts = torch.autograd.grad(loss, parameters, create_graph=along is not None)
                if along is not None:
                    product = torch.stack([(g * v).sum() for g, v in zip(parts, along, strict=True)]).sum()
                    parts = torch.autograd.grad(product, parameters)
            for have, more in zip(sums, parts, strict=True):
                have += more
        return sums


def in_parts(count: int, size: int) -> list[int]:
    """The sizes of parts of ``size`` and a rest; a rest of 1, of which batch norms have no statistics, joins the last part."""
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    return [*sizes[:-2], size + 1] if len(sizes) > 1 and sizes[-1] == 1 < size else sizes


@contextmanager
def differentiable_twice(network: nn.Module) -> Iterator[None]:
    """The fused kernels of attention and, on a GPU, of recurrent layers have no second derivative."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), plain:
        yield


def _rank_in_class(labels: Tensor, classes: int) -> Tensor:
    """How many examples of its own class come before each one: (n,) int64."""
    one_hot = torch.nn.functional.one_hot(labels, classes)
    return one_hot.cumsum(0).gather(1, labels[:, None])[:, 0] - 1
