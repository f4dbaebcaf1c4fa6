"""Layer-adaptive magnitude pruning: one ranking over all layers, of magnitudes that each layer measures by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.weights.distributions.base import DISTRIBUTIONS
from sparselab.weights.distributions.ranked import Global, finite

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


@DISTRIBUTIONS.register("lamp")
class Lamp(Global):
    """A layer keeps as many weights as it has among the largest LAMP scores of the network (arXiv 2010.07611, eq. 2).

    With the weights of a layer in ascending order of size, ``score(u) = W[u]^2 / sum of W[v]^2 over v >= u``: the share that a
    weight has of what is left of its layer once everything smaller is gone. The largest weight of any layer scores 1.
    """

    own_scores = True

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return slot.dense.abs()

    def allocate_scored(self, scores: dict[str, Tensor], density: float) -> dict[str, int]:
        """As :meth:`Global.allocate_scored`, of the LAMP scores of magnitudes (any sign)."""
        finite(scores)
        return super().allocate_scored({name: lamp_scores(size) for name, size in scores.items()}, density)


def lamp_scores(weights: Tensor) -> Tensor:
    """LAMP scores of a layer's weights, 1-D float64, the largest weight's first. Of zeros they are 0.

    Sums are float64: of a hundred million squares float32 would lose the smallest.

    Args:
        weights: (*weight), or its magnitudes in any order

    Returns:
        (n,) float64 in falling order of magnitude: w^2 over the sum of its own square and those of all larger weights
            (arXiv 2010.07611).
    """
    squares = weights.detach().reshape(-1).double().square().sort(descending=True, stable=True).values
    left = squares.cumsum(0)  # of this weight and all larger ones
    return (squares / left).nan_to_num(nan=0.0)
