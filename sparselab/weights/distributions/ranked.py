"""One ranking over all layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from sparselab.core.model_spec import Layer
from sparselab.weights.count import keep_count
from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor


@DISTRIBUTIONS.register("global")
class Global(Distribution):
    """The largest scores of the whole network stay, wherever they are; a layer may lose everything."""

    patterns = patterns_where(lambda pattern: pattern.free or not pattern.prunes)
    needs_scores = True

    def densities(self, layers: list[Layer], density: float) -> NoReturn:
        raise NotImplementedError("a global ranking needs scores: call allocate_scored")

    def allocate_scored(self, scores: dict[str, Tensor], density: float) -> dict[str, int]:
        """How many of the exact top ``density`` of all scores lie in each layer.

        Of equal scores the earlier layer's are kept first, and in a layer the lowest flat index, which is the order of
        ``Pattern.mask``. Raises ValueError for NaN or infinite scores.
        """
        import torch

        from sparselab.weights.select import largest

        finite(scores)
        flat = torch.cat([score.detach().reshape(-1) for score in scores.values()])
        kept = largest(flat, keep_count(len(flat), density)).split([score.numel() for score in scores.values()])
        counts = torch.stack([part.sum() for part in kept]).tolist()
        return dict(zip(scores, counts, strict=True))


def finite(scores: Mapping[str, Tensor]) -> None:
    """Raise ValueError for scores that are NaN or infinite."""
    from sparselab.weights.select import all_finite

    if not bool(all_finite(scores.values())):
        raise ValueError("scores hold NaN or infinite values")
