"""A mask drawn at random before training and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.methods.method import METHODS, Method
from sparselab.spec.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.sparsity.slots import Moment, Slot


@METHODS.register("random")
class Random(Method):
    """Static sparse training (Liu et al. 2022, arXiv 2202.02643): random positions, layer densities from the distribution.

    The draw depends on ``seed`` alone (and the tensor's name), never on how the weights were initialised. ``bernoulli``
    keeps each weight by itself, with its layer's density, as the released code does (VITA-Group/Random_Pruning
    ``CIFAR/sparselearning/core.py``); a layer that loses all its weights is left so, as there. ``exact`` keeps as many of
    each layer as the distribution gives it, whatever the pattern.
    """

    class Options(Options):
        draw: Literal["exact", "bernoulli"] = Field("exact", description="exact or bernoulli: each weight by itself")
        rescale: bool | Literal["global"] = Field(
            False,
            description="false, true (initial weights over the root of their layer's density), or global (of all's)",
        )

    options: Options
    schedules = ("constant", "one_shot")

    @property
    def by_chance(self) -> str | None:  # type: ignore[override]
        return "method.draw=exact" if self.options.draw == "bernoulli" else None

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        return moment.random(slot)

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        everything = sum(slot.mask.numel() for slot in slots)
        self.whole = everything / max(1, sum(kept[slot.layer.name] for slot in slots))

    def remask(self, slot: Slot, kept: int, moment: Moment) -> Tensor:
        mask = moment.bernoulli(slot, kept) if self.by_chance else super().remask(slot, kept, moment)
        if self.options.rescale and moment.step == 0:  # what is left has the variance that the dense layer had
            slot.dense.mul_((self.whole if self.options.rescale == "global" else mask.numel() / max(1, kept)) ** 0.5)
        return mask
