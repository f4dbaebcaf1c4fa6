"""Progressive gradient flow: straight-through training in which masks, or what they keep, tighten little by little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.weights.method import METHODS
from sparselab.weights.methods.straight_through import STE
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot


@METHODS.register("mdgf")
class MdGf(STE):
    """Mask decay gradient flow (arXiv 2402.04744): the network computes with W (E + (1 - E) beta(t)).

    beta is the schedule's ``soft_coefficient``: linear (``mask_linear``) or exponential (``mask_exp``). The mask E is
    made anew at every update. ``backward`` is what becomes of the gradient g of the effective weights on its way to W:
    ``ste`` passes it on unchanged (the paper's released code), ``scaled`` is its true derivative, g (E + (1 - E) beta)
    (the JAX code of its predecessor, arXiv 2209.07617, and the abstract's wording).
    """

    schedules = ("mask_linear", "mask_exp")

    class Options(AnyOptions):
        backward: Literal["ste", "scaled"] = Field(description="ste (the released code) or scaled (true derivative)")

    @property
    def weight_grad(self) -> str:  # type: ignore[override]
        """Under ``scaled`` weights that no longer take part get no gradient."""
        return "kept" if self.options.backward == "scaled" else "dense"

    def factor(self, slot: Slot) -> Tensor:
        """E + (1 - E) beta, exactly 1 where the mask is True, in the weights' dtype."""
        return slot.mask.to(slot.dense.dtype).clamp_(min=slot.soft_coefficient)

    def effective(self, slot: Slot, out: Tensor) -> None:
        import torch

        torch.mul(slot.dense, self.factor(slot), out=out)

    def pullback(self, slot: Slot) -> None:
        if self.options.backward == "scaled":
            slot.grad.mul_(self.factor(slot))


@METHODS.register("sdgf")
class SdGf(MdGf):
    """Structure decay gradient flow (arXiv 2402.04744): binary masks whose N:M tightens in stages (the schedule's).

    beta is 0 throughout. ``stepwise`` goes M-1:M, M/2:M ... N:M, ``geometric`` kN:kM with k = 8, 4, 2, 1.
    """

    patterns = patterns_where(lambda pattern: pattern.grouped)
    schedules = ("stepwise", "geometric")
