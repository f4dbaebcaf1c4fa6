"""One sparse weight, and the moment at which its mask is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.weights.schedules.base import FADED

if TYPE_CHECKING:
    from sparselab.core.model_spec import Layer
    from sparselab.weights.patterns.pattern import Pattern


@dataclass
class Slot:
    """One sparse tensor: the parameter, its mask and, where the method keeps one, its dense master.

    mask: bool, the parameter's shape; True is kept. master: dense values, the parameter's shape and dtype, or None.
    learned: a tensor that the method trains beside the weight (scores of a mask, say), or None.
    state: what else the method keeps of this weight, tensors by name; checkpoints hold it.
    dense_grad: the unmasked gradient of the update under way, kept only for methods that grow by gradient.
    scale: the scales of the norm behind the layer, one a unit, where the model's spec names it and it has any.
    soft_coefficient: share of its value with which a pruned weight still takes part; 0 where masks are hard.
    bias: the layer's bias, where its units are whole and the method trains it with them; None otherwise.
    bias_master: dense values of the bias, where there is one and the method keeps a master.
    """

    layer: Layer
    param: nn.Parameter
    pattern: Pattern
    mask: Tensor
    master: Tensor | None = None
    learned: nn.Parameter | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    dense_grad: Tensor | None = None
    kept: int = 0
    soft_coefficient: float = 0.0
    scale: nn.Parameter | None = None
    bias: nn.Parameter | None = None
    bias_master: Tensor | None = None

    @property
    def name(self) -> str:
        return self.layer.tensor

    @property
    def dense(self) -> Tensor:
        """The values that scores are taken from: the master if there is one, else the parameter itself."""
        return self.param.data if self.master is None else self.master

    @property
    def dense_bias(self) -> Tensor | None:
        """The same of the bias, where the method trains it with its units."""
        if self.bias is None:
            return None
        return self.bias.data if self.bias_master is None else self.bias_master

    def keep_master(self) -> None:
        """Keep the dense values beside the parameters from now on."""
        self.master = self.param.detach().clone()
        if self.bias is not None:
            self.bias_master = self.bias.detach().clone()

    def swap(self) -> None:
        """Exchange what the parameters hold with the dense values beside them."""
        assert self.master is not None
        self.param.data, self.master = self.master, self.param.data
        if self.bias is not None and self.bias_master is not None:
            self.bias.data, self.bias_master = self.bias_master, self.bias.data

    @property
    def computing(self) -> int:
        """Weights that the network computes with: those kept, or all while pruned ones take part."""
        return self.mask.numel() if self.soft_coefficient >= FADED else self.kept

    @property
    def grad(self) -> Tensor:
        if self.param.grad is None:
            raise RunFailed(f"{self.name}: has no gradient — exclude it (targets.exclude) or use the layer in the loss")
        return self.param.grad


def no_inputs(slot: Slot) -> Tensor:
    """Refuse to tell a layer's inputs: the method did not ask for them."""
    raise RuntimeError(f"{slot.name}: nothing is known of its inputs; the method has not the capability ReadsInputs")


@dataclass(frozen=True)
class UpdateContext:
    """When a mask is made. ``step``: optimiser updates so far (0: before training); ``total``: of the whole run.

    fraction: share of the kept connections that a periodic method exchanges now.
    inputs: mean of x x^T of what a slot's layer reads, float32 (inputs, inputs), for methods that ask for it; of groups and
            experts (groups, inputs, inputs).
    begun: updates done when the task under way began; 0 without a scenario.
    epoch: updates done when the epoch under way began.
    memory: what the optimiser remembers of a slot's weight, tensors by torch's names (``exp_avg``, ``momentum_buffer``).
    """

    step: int
    total: int
    fraction: float
    seed: int
    inputs: Callable[[Slot], Tensor] = no_inputs
    begun: int = 0
    memory: Callable[[Slot], Mapping[str, Tensor]] = lambda slot: {}
    epoch: int = 0

    @property
    def within(self) -> int:
        """Return the updates so far of the task under way; of the run where there is one task."""
        return self.step - self.begun

    def random(self, slot: Slot) -> Tensor:
        """Uniform numbers of the slot's shape, drawn on the CPU so that every device and rank sees the same.

        Args:
            slot: the layer

        Returns:
            (*weight) float32 in [0, 1), on the parameter's device.
        """
        return self._numbers(slot).to(slot.param.device)

    def bernoulli(self, slot: Slot, kept: int) -> Tensor:
        """A mask of the slot's shape in which each weight is kept by a draw of its own, so that ``kept`` are on average.

        Of the same numbers as :meth:`random`: it holds the largest of them, however many chance makes it.

        Args:
            slot: the layer
            kept: the mean number of True

        Returns:
            (*weight) bool, on the parameter's device.
        """
        return (self._numbers(slot) >= 1 - kept / slot.mask.numel()).to(slot.param.device)

    def permuted(self, slot: Slot, mask: Tensor) -> Tensor:
        """``mask`` with its entries in another order, drawn for this layer: as many are kept, elsewhere.

        Args:
            slot: the layer
            mask: (*weight) bool

        Returns:
            (*weight) bool with as many True.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "permutation", slot.name))
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        return torch.empty_like(mask).copy_(mask.flatten()[order].view(mask.shape))

    def _numbers(self, slot: Slot) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "mask", slot.name, self.step))
        return torch.rand(slot.param.shape, generator=generator)
