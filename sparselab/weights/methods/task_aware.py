"""SparCL: masks that follow importance and widen for each task, and gradients of few weights [no torch at import]."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import KnowsTasks, ThinsGradients
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class TaskAwareOptions(Options):
    """How much gradients say about a connection, and how many of them an update follows."""

    gradient_importance: float = Field(ge=0, description="weight of |gradient| beside |weight|, at least 0")
    gradient_sparsity: float | None = Field(
        gt=0, lt=1, description="share of a layer's weights that an update leaves alone, in (0, 1), or null"
    )
    redraw_every: int = Field(ge=1, description="updates between two choices of the weights that move, at least 1")


@METHODS.register("sparcl")
class TaskAware(KnowsTasks, ThinsGradients, Method):
    """Sparse continual learning (Wang et al. 2022, arXiv 2209.09476), its task-aware dynamic masks and its gradient masks.

    A mask keeps the connections of largest |w| + ``gradient_importance`` |g| and grows others at random, which begin at zero
    (neu-spiral/SparCL ``prune_utils``); how many, and when, the schedule ``breathing`` says. g is the gradient of the last
    update, of new and replayed examples together, as the optimiser saw it. One network has all tasks.
    ``slot.state``: ``moving``, bool: the connections that move until others are chosen.
    """

    Options = TaskAwareOptions
    options: TaskAwareOptions
    patterns = patterns_where(lambda pattern: pattern.free)
    schedules = ("breathing",)

    @property
    def moving_share(self) -> float | None:  # type: ignore[override]
        sparsity = self.options.gradient_sparsity
        return None if sparsity is None else 1 - sparsity

    # -- masks -------------------------------------------------------------------------------------------------------

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return importance(slot.dense, slot.param.grad, self.options.gradient_importance)

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        from sparselab.weights.exchange import grown

        new = round(context.fraction * kept)
        score = self.score(slot, context).masked_fill(~slot.mask, -1.0)
        stay = slot.pattern.mask(score, (kept - new) / slot.mask.numel())
        slot.dense.masked_fill_(~stay, 0.0)
        slot.state.pop("moving", None)
        return stay | grown(context.random(slot), stay, new)

    # -- gradients ---------------------------------------------------------------------------------------------------

    def begin_update(self, slots: list[Slot], context: UpdateContext) -> None:
        """Choose anew which weights move: at the begin of an epoch, every ``redraw_every`` from there, under a new mask."""
        sparsity = self.options.gradient_sparsity
        if sparsity is None:
            return
        due = (context.step - 1 - context.epoch) % self.options.redraw_every == 0
        for slot in slots:
            if slot.param.grad is not None and (due or "moving" not in slot.state):
                slot.state["moving"] = moving(slot.param.grad * slot.mask, sparsity)

    def pullback(self, slot: Slot) -> None:
        super().pullback(slot)
        if (moves := slot.state.get("moving")) is not None:
            slot.grad.mul_(moves)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def of_task(self, slot: Slot, task: int, out: Tensor) -> None:
        self.effective(slot, out)  # all tasks have one network


def importance(weight: Tensor, grad: Tensor | None, share: float) -> Tensor:
    """How much a connection matters: |w| + share |g|.

    Args:
        weight: of a layer, any shape
        grad: likewise; None before the first update
        share: at least 0

    Returns:
        The same shape, float.
    """
    size = weight.float().abs()
    return size if grad is None else size + share * grad.float().abs()


def moving(grad: Tensor, sparsity: float) -> Tensor:
    """The weights that move: |g| at or above its percentile, linear between ranks as numpy's (neu-spiral/SparCL).

    Args:
        grad: of a layer, any shape, zero where the mask is
        sparsity: the percentile, in (0, 1)

    Returns:
        The same shape, bool; none whose gradient is zero.
    """
    size = grad.abs().flatten()
    rank = ceil(Fraction(repr(sparsity)) * (size.numel() - 1))  # between two ranks only the upper one is not below
    threshold = size.kthvalue(rank + 1).values
    return ((size >= threshold) & (size > 0)).view(grad.shape)
