"""Dynamic sparse training: drop the smallest weights, grow others, at constant density."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


@METHODS.register("set")
class SET(Method):
    """Sparse evolutionary training (Mocanu et al. 2018): drop by magnitude, grow at random.

    Starts from a random mask. A connection that is dropped and grown in the same update keeps its value; any other grown
    one starts at zero with an empty optimiser state.
    """

    patterns = patterns_where(lambda pattern: pattern.free)
    schedules = ("periodic",)

    def growth(self, slot: Slot, context: UpdateContext) -> Tensor:
        """Return the score by which inactive connections are grown."""
        return context.random(slot)

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        import torch

        density = kept / slot.mask.numel()
        if context.step == 0:
            return slot.pattern.mask(context.random(slot), density)
        drop = int(context.fraction * kept)
        if drop == 0:
            return slot.mask
        lowest = torch.finfo(torch.float32).min
        magnitude = slot.dense.float().abs().masked_fill(~slot.mask, lowest)
        survivors = slot.pattern.mask(magnitude, (kept - drop) / slot.mask.numel())
        growth = self.growth(slot, context).float().masked_fill(survivors, lowest)
        return survivors | slot.pattern.mask(growth, drop / slot.mask.numel())


@METHODS.register("rigl")
class RigL(SET):
    """RigL (Evci et al. 2020): as SET, but grows where the dense gradient is largest.

    The gradient is the optimiser's: averaged over micro-batches and ranks, unscaled, before clipping and masking.
    Unlike the authors' code, the update also takes its gradient step; the mask is changed after it.
    """

    needs_dense_grad = True

    def growth(self, slot: Slot, context: UpdateContext) -> Tensor:
        assert slot.dense_grad is not None  # asked for by needs_dense_grad
        return slot.dense_grad.abs()
