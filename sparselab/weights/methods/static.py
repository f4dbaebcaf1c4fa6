"""A mask drawn at random before training and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sparselab.core.options import Options, off
from sparselab.weights.capabilities import KeepsByChance, KnowsCounts
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class RandomOptions(Options):
    """How a random mask is drawn, and what becomes of the weights under it."""

    draw: Literal["exact", "bernoulli"] = off("exact", description="exact or bernoulli: each weight by itself")
    rescale: bool | Literal["global"] = off(
        False, description="false, true (initial weights over the root of their layer's density), or global (of all's)"
    )


@METHODS.register("random")
class Random(KeepsByChance, KnowsCounts, Method):
    """Static sparse training (Liu et al. 2022, arXiv 2202.02643): random positions, layer densities from the distribution.

    The draw depends on ``seed`` alone (and the tensor's name), never on how the weights were initialised. ``bernoulli``
    keeps each weight by itself, with its layer's density, as the released code does (VITA-Group/Random_Pruning
    ``CIFAR/sparselearning/core.py``); a layer that loses all its weights is left so, as there. ``exact`` keeps as many of
    each layer as the distribution gives it, whatever the pattern.
    """

    Options = RandomOptions
    options: RandomOptions
    patterns = patterns_where(lambda pattern: pattern.prunes, whole=True)
    schedules = ("constant", "one_shot")

    @property
    def by_chance(self) -> str | None:  # type: ignore[override]
        return "method.draw=exact" if self.options.draw == "bernoulli" else None

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return context.random(slot)

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        everything = sum(slot.mask.numel() for slot in slots)
        self.whole = everything / max(1, sum(kept[slot.layer.name] for slot in slots))

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        mask = context.bernoulli(slot, kept) if self.by_chance else super().remask(slot, kept, context)
        if self.options.rescale and context.step == 0:  # what is left has the variance that the dense layer had
            slot.dense.mul_((self.whole if self.options.rescale == "global" else mask.numel() / max(1, kept)) ** 0.5)
        return mask
