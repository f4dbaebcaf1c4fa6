"""Straight-through training of masks that move at every update: STE and SR-STE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import PullsBackTogether
from sparselab.weights.method import METHODS, Method

if TYPE_CHECKING:
    from sparselab.weights.slot import Slot


@METHODS.register("ste")
class STE(Method):
    """The gradient of the masked weights goes to the dense master unchanged; the mask is made anew at every update."""

    keeps_master = True
    every_step = True
    clears_state = False
    weight_grad = "dense"

    def pullback(self, slot: Slot) -> None:
        """dL/dW := dL/dS(W), untouched (not multiplied by the mask: that would be masked training)."""


@METHODS.register("srste")
class SRSTE(PullsBackTogether, STE):
    """STE with the sparse-refined term (Zhou et al. 2021, arXiv 2102.04010): dL/dW := g + lambda (1 - E) W.

    The term is part of the gradient: the learning rate multiplies it, momentum accumulates it, weight decay comes on top.
    """

    class Options(Options):
        lambda_w: float = Field(description="a decay per update: 2e-4 is the paper's, 0 is ste, negative grows")

    def pullbacks(self, slots: list[Slot]) -> None:
        from sparselab.weights.kernels.dispatch import add_pruned

        dense, masks = [slot.dense for slot in slots], [slot.mask for slot in slots]
        add_pruned([slot.grad for slot in slots], dense, masks, self.options.lambda_w)
