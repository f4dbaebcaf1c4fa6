"""Outlier-weighed layer-wise sparsity: blocks with many outlying weights keep more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NoReturn

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.model_spec import Layer
from sparselab.weights.capabilities import ReadsInputs
from sparselab.weights.count import keep_count
from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution, whole_numbers
from sparselab.weights.distributions.ranked import finite
from sparselab.weights.matrix import by_input_norms
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext

NUMBERED = re.compile(r"(?:^|.*?\.)\d+(?=\.)")


@DISTRIBUTIONS.register("owl")
class Owl(ReadsInputs, Distribution):
    """Density of a block = 1 - S + (its place among the blocks' shares of outliers) within ``spread`` (arXiv 2310.05175).

    A weight is an outlier if |W_ij| times the norm of input j exceeds ``threshold`` times its block's mean. Shares of outliers
    are mapped linearly to a band of width ``2 * spread`` around the density that is asked for. A block is what the
    first number in a layer's name says (``model.layers.3``); a layer without one is by itself.

    The mean that is taken off is weighted by the blocks' sizes, so that the total is exact (in the released code, of equal
    blocks, it is the plain mean); where a block would leave [0, 1], the band is made as narrow as it has to be, and where all
    shares are equal, all densities are.
    """

    patterns = patterns_where(lambda pattern: pattern.free or not pattern.prunes)
    needs_scores = True
    own_scores = True

    class Options(spec_options.Options):
        threshold: float = Field(gt=0, description="the paper's M: outliers exceed so many means, above 0")
        spread: float = Field(ge=0, lt=1, description="the paper's lambda: half the width of the band, in [0, 1)")
        samples: int = Field(ge=1, description="training examples that are looked at, at least 1")
        per: Literal["block", "layer"] = Field(description="block or layer: what gets a density of its own")

    def densities(self, layers: list[Layer], density: float) -> NoReturn:
        raise NotImplementedError("outliers are counted in scores: call allocate_scored")

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return by_input_norms(slot, context.inputs(slot))

    def allocate_scored(self, scores: dict[str, Tensor], density: float) -> dict[str, int]:
        """Share the weights out by the outliers of each block.

        Args:
            scores: (*weight) float by layer
            density: the fraction kept over all of them

        Returns:
            Weights kept by layer, at least one each; they sum to ``density`` times the total.

        Raises:
            ValueError: a score is NaN.
        """
        finite(scores)
        parts: dict[str, list[str]] = {}
        for name in scores:
            parts.setdefault(self._part(name), []).append(name)
        sizes = [sum(scores[name].numel() for name in names) for names in parts.values()]
        outliers = [outlier_share([scores[name] for name in names], self.options.threshold) for names in parts.values()]
        found = dict(zip(parts, band(outliers, sizes, density, self.options.spread), strict=True))
        layers = [Layer(name, "linear", tuple(score.shape), 0) for name, score in scores.items()]
        total = keep_count(sum(sizes), density)
        return whole_numbers(layers, [found[self._part(name)] for name in scores], total, self.where)

    def _part(self, name: str) -> str:
        number = NUMBERED.match(name) if self.options.per == "block" else None
        return number.group() if number else name


def outlier_share(scores: Sequence[Tensor], threshold: float) -> float:
    """The share of entries above ``threshold`` times the mean of all entries.

    Args:
        scores: |W| times the norm of the input (OWL, arXiv 2310.05175), one tensor for each layer of a block
        threshold: M of the paper

    Returns:
        From 0 to 1.
    """
    total = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / total
    return sum(int((score > threshold * mean).sum()) for score in scores) / total


def band(shares: Sequence[float], sizes: Sequence[int], density: float, spread: float) -> list[float]:
    """Densities, each in [0, 1], whose mean weighted by ``sizes`` is ``density``: larger where the share is."""
    low, high = min(shares), max(shares)
    if high == low:
        return [density] * len(shares)
    raised = [(share - low) / (high - low) * 2 * spread for share in shares]
    mean = sum(size * value for size, value in zip(sizes, raised, strict=True)) / sum(sizes)
    moved = [value - mean for value in raised]
    room = min([1.0, *((1 - density if move > 0 else density) / abs(move) for move in moved if move)])
    return [density + room * move for move in moved]
