"""Dynamic sparse learning for recommendation: exchanges of connections over the whole of training."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import KeepsByChance, Reports
from sparselab.weights.method import METHODS
from sparselab.weights.methods.dynamic import SET

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext

BETAS = (0.9, 0.999)
EPS = 1e-8


class DSLOptions(Options):
    """The places where connections begin, and by which numbers they grow."""

    grow: Literal["gradient", "random", "unfired", "momentum"] = Field(
        description="gradient, random, unfired (at random, those first that never were active) or momentum (Adam's direction)"
    )
    draw: Literal["exact", "bernoulli", "largest"] = Field(
        description="first masks: exact (at random), bernoulli (each weight by itself) or largest (of each layer, by magnitude)"
    )
    reset_on_grow: bool = Field(
        description="true: a grown weight starts with an empty optimiser state; false: with what gradients left there"
    )


@METHODS.register("dsl")
class DSL(KeepsByChance, Reports, SET):
    """DSL (Wang et al. 2024, arXiv 2402.02855; shuyao-wang/DSL ``*/utils/core.py``).

    With n kept weights of a layer and a share r, ``ceil(r n)`` of the smallest leave, and with them all others of that
    magnitude; as many grow, by the dense gradient of the update, of those that are then inactive. One that leaves and grows
    at once keeps its value, others start at zero. The schedule is ``periodic`` over the whole run, with a share that falls
    from 0.5 to ``floor`` 0.005 by a cosine.
    ``train.fired``: the share of weights that ever were active.
    """

    Options = DSLOptions
    options: DSLOptions

    @property
    def by_chance(self) -> str | None:  # type: ignore[override]
        return "method.draw=exact" if self.options.draw == "bernoulli" else None

    @property
    def needs_dense_grad(self) -> bool:  # type: ignore[override]
        return self.options.grow == "gradient"

    @property
    def clears_state(self) -> bool:  # type: ignore[override]
        return self.options.reset_on_grow

    @property
    def weight_grad(self) -> Literal["dense", "kept"]:  # type: ignore[override]
        return "kept" if self.options.reset_on_grow and self.options.grow != "momentum" else "dense"

    def pullback(self, slot: Slot) -> None:
        if self.options.grow == "momentum":
            grad = slot.grad.nan_to_num(0.0, 0.0, 0.0)  # an update that the loss scaler skips leaves no trace
            for name, beta, new in zip(("first", "second"), BETAS, (grad, grad.square()), strict=True):
                before = slot.state.get(name)
                slot.state[name] = (1 - beta) * new if before is None else before.lerp(new, 1 - beta)
        if self.options.reset_on_grow:
            super().pullback(slot)

    def growth(self, slot: Slot, context: UpdateContext) -> Tensor:
        if self.options.grow == "gradient":
            assert slot.dense_grad is not None  # asked for by needs_dense_grad
            return slot.dense_grad.abs()
        if self.options.grow == "momentum":
            return (slot.state["first"] / (slot.state["second"].sqrt() + EPS)).abs()
        drawn = context.random(slot)
        return drawn + ~fired(slot) if self.options.grow == "unfired" else drawn

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        if context.step == 0:
            mask = self._first(slot, kept, context)
            slot.state["fired"] = mask.clone()
            return mask
        slot.dense.masked_fill_(~slot.mask, 0.0)  # where gradients are dense the optimiser moved pruned weights, too
        stay = survivors(slot.dense, slot.mask, context.fraction)
        missing = int(slot.mask.sum()) - int(stay.sum())
        mask = stay | grown(self.growth(slot, context), stay, missing)
        slot.state["fired"] = fired(slot) | mask
        return mask

    def _first(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        if self.options.draw == "bernoulli":
            return context.bernoulli(slot, kept)
        score = slot.dense.abs() if self.options.draw == "largest" else context.random(slot)
        return slot.pattern.mask(score, kept / slot.mask.numel())

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        weights = sum(slot.mask.numel() for slot in slots)
        return {"fired": sum(int(fired(slot).sum()) for slot in slots) / weights} if weights else {}


def fired(slot: Slot) -> Tensor:
    """(*weight) bool: the weights that were active at any time."""
    return slot.state.get("fired", slot.mask)


def survivors(weight: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Drop the smallest ``ceil(fraction * active)`` weights, and with them all of the largest magnitude among these.

    Args:
        weight: of a layer, any shape
        mask: likewise, bool: the active ones
        fraction: share that leaves, in [0, 1]

    Returns:
        The same shape, bool.
    """
    active = int(mask.sum())
    leave = ceil(fraction * active)
    if not leave:
        return mask
    magnitude = weight.float().abs() * mask
    threshold = magnitude.flatten().kthvalue(magnitude.numel() - active + leave).values
    return magnitude > threshold


def grown(score: Tensor, stay: Tensor, count: int) -> Tensor:
    """Choose ``count`` connections with the largest scores among those that do not ``stay``.

    Args:
        score: of a layer, any shape, from 0
        stay: likewise, bool
        count: at most as many as do not stay

    Returns:
        The same shape, bool; ties go to the lowest flat index.
    """
    if not count:
        return stay & False
    scores = score.float().masked_fill(stay, -1.0).flatten()
    threshold = scores.kthvalue(scores.numel() - count + 1).values
    mask = scores > threshold
    level = (scores == threshold).nonzero().flatten()
    mask[level[: count - int(mask.sum())]] = True
    return mask.view_as(stay)
