"""A mask drawn at random before training and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.methods.method import METHODS, Method

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.sparsity.slots import Moment, Slot


@METHODS.register("random")
class Random(Method):
    """Static sparse training (Liu et al. 2022, arXiv 2202.02643): random positions, layer densities from the distribution.

    The draw depends on ``seed`` alone (and the tensor's name), never on how the weights were initialised.
    """

    schedules = ("constant", "one_shot")

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        return moment.random(slot)
