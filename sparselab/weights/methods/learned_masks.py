"""Masks that are learned: a score beside each weight, trained through the ranking by a straight-through gradient."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.options import Options, off
from sparselab.weights.alternating import AlternatingUpdate
from sparselab.weights.capabilities import Alternates, LearnsTensors
from sparselab.weights.count import nearest_count
from sparselab.weights.method import METHODS, Method

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class ScoreOptions(Options):
    """Options of every method with learned scores."""

    score_lr: float = Field(gt=0, description="peak learning rate of the scores, above 0")
    score_schedule: Literal["constant", "cosine", "linear", "step"] = Field(
        description="constant, cosine, linear or step"
    )
    unmasked: Literal["weights", "both"] = Field(description="weights or both")
    score_init: Literal["weights", "scaled"] = off("weights", description="weights or scaled")


class LearnedMask(Alternates, LearnsTensors, Method):
    """Base: the largest |score| stay; scores start as a copy of the weights and follow dL/ds = dL/dm * sign(s).

    Updates of scores and updates of weights take turns, each on a batch of its own; masks move with the scores only.
    Pruned weights wait in the dense master: they get no gradient (their effective weight is 0) and may return.
    ``unmasked=both`` lets biases and norms move in both kinds of update. ``score_init=scaled`` starts a layer's scores at
    sqrt(6 / fan_in) * w / max|w|, as inspire-group/hydra does (``initialize_scaled_score``).
    """

    Options = ScoreOptions
    options: ScoreOptions
    schedules = ("constant",)
    keeps_master = True
    every_step = True
    clears_state = False

    def on_scores(self, step: int, total: int) -> bool:
        """True if update ``step`` is one of the scores."""
        raise NotImplementedError

    def alternating_update(self, step: int, total: int) -> AlternatingUpdate:
        if self.on_scores(step, total):
            return AlternatingUpdate(weights=False, others=self.options.unmasked == "both")
        return AlternatingUpdate(learned=False)

    def learned(self, slot: Slot) -> Tensor:
        if self.options.score_init == "weights":
            return slot.dense
        fan_in = slot.layer.numel / slot.layer.outputs
        largest = float(slot.dense.abs().max()) or 1.0  # a layer of zeros has scores of zero
        return slot.dense * (sqrt(6 / fan_in) / largest)

    def learning(self) -> dict[str, Any]:
        return {"lr": self.options.score_lr, "schedule": self.options.score_schedule}

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        assert slot.learned is not None
        scores = slot.learned.detach()
        # Blocks and channels rank by the sum over their weights: of squares, which is the L2 norm's order.
        return scores.abs() if slot.pattern.sparsity.single else scores.square()

    def learn(self, slot: Slot) -> Tensor:
        """dL/ds, with dm/ds taken as the sign that |s| leaves (a score that is exactly 0 stays)."""
        assert slot.learned is not None
        return self.mask_gradient(slot).mul_(slot.learned.detach().sign())

    def mask_gradient(self, slot: Slot) -> Tensor:
        """dL/dm of the effective weights m * w with w held fixed: w * dL/d(m * w). A new tensor."""
        return slot.dense * slot.grad


@METHODS.register("bip")
class BiP(LearnedMask):
    """Bi-level pruning (Zhang et al. 2022, arXiv 2210.04092): weights below, their mask above, in turns.

    Lower: w follows m * g + gamma * w (``optim.weight_decay`` is this gamma). Upper: with g = dL/d(m * w) on another
    batch, the implicit function theorem and a Hessian of 0 give dL/dm = w * g - (1 / gamma) * g * (m * g).
    ``implicit``: ``paper`` is that; ``repo`` is the released code's dL/ds - inv_gamma * (dL/ds)^2; ``off`` keeps the
    first term alone. ``mask_factor=false`` leaves out the m of the second term, as printed in the paper.
    """

    class Options(ScoreOptions):
        inv_gamma: float = Field(ge=0, description="1 / gamma of the implicit term, at least 0")
        implicit: Literal["paper", "repo", "off"] = Field(description="paper, repo or off")
        mask_factor: bool = Field(description="true or false")
        lower_steps: int = Field(ge=1, description="updates of the weights before each one of the scores")
        finetune: float = Field(ge=0, lt=1, description="last part of the run with a fixed mask, in [0, 1)")

    options: Options

    def on_scores(self, step: int, total: int) -> bool:
        searched = total - nearest_count(self.options.finetune, total)
        return step <= searched and step % (self.options.lower_steps + 1) == 0

    def mask_gradient(self, slot: Slot) -> Tensor:
        gradient = super().mask_gradient(slot)
        if self.options.implicit == "paper":
            implied = slot.grad * slot.mask if self.options.mask_factor else slot.grad
            gradient.addcmul_(slot.grad, implied, value=-self.options.inv_gamma)
        return gradient

    def learn(self, slot: Slot) -> Tensor:
        gradient = super().learn(slot)
        if self.options.implicit == "repo":
            gradient.addcmul_(gradient.clone(), gradient, value=-self.options.inv_gamma)
        return gradient


@METHODS.register("hydra_mask")
class Hydra(LearnedMask):
    """HYDRA (Sehwag et al. 2020, arXiv 2002.10509): learn the mask with weights frozen, then the weights under it."""

    class Options(ScoreOptions):
        search: float = Field(gt=0, le=1, description="first part of the run, in which scores move, in (0, 1]")

    options: Options

    def on_scores(self, step: int, total: int) -> bool:
        return step <= nearest_count(self.options.search, total)
