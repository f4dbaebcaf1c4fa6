"""Patches of photographs to learn from, and others to be scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparselab.estimation.problems.images import gabor

FEW = 4  # Gabor-like units, below which nothing is said about their shapes


@dataclass(frozen=True)
class PatchSample:
    """X: (n, side * side) patches to fit. held: (k, side * side), of other photographs. cut: see :meth:`measure`."""

    X: np.ndarray
    held: np.ndarray
    side: int
    cut: float
    y: None = None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of a dictionary (``transform``, ``inverse_transform``, ``components_``) on the held-out patches.

        ``error``: squared error over the patches' variance. ``mse``: per pixel. ``active``: share of the units that a patch
        uses, ``active_units``: their number; an exact zero is no use. ``sparsity``: 1 - active. ``used``: share of the
        units that any patch uses. Of the units' fields: see :func:`shapes`.
        """
        codes = fitted.transform(self.held)
        left = self.held - fitted.inverse_transform(codes)
        on = codes != 0
        active = float(on.mean())
        return {
            "error": float((left**2).mean() / (self.held**2).mean()),
            "mse": float((left**2).mean()),
            "active": active,
            "active_units": active * codes.shape[1],
            "units": float(codes.shape[1]),
            "sparsity": 1 - active,
            "used": float(on.any(axis=0).mean()),
            **shapes(fitted.components_, self.side, self.cut),
        }


def shapes(fields: np.ndarray, side: int, cut: float) -> dict[str, float]:
    """Return statistics of a dictionary's fields (units, side * side).

    ``gabor_share``: of units whose Gabor fit explains at least ``cut`` of their energy. ``explained``: the mean of that.
    ``selectivity``: mean orientation selectivity, 0 to 1. Of the Gabor-like units, where there are at least four:
    ``shape_spread``, the interquartile ranges of sx f and sy f together (periods under the envelope across the stripes and
    along them: a blob is near 0, long stripes are far out), and ``orientations``, the entropy of their preferred
    orientations over eight bins, 1 where all are alike frequent.
    """
    fits = gabor.fit(fields, side)
    like = fits.explained >= cut
    found = {
        "gabor_share": float(like.mean()),
        "explained": float(fits.explained.mean()),
        "selectivity": float(gabor.selectivity(fields, side).mean()),
    }
    if like.sum() >= FEW:
        across, along = (fits.sx * fits.frequency)[like], (fits.sy * fits.frequency)[like]
        found["shape_spread"] = float(sum(np.subtract(*np.quantile(n, [0.75, 0.25])) for n in (across, along)))
        counts = np.histogram(fits.theta[like] % np.pi, bins=8, range=(0, np.pi))[0] / like.sum()
        found["orientations"] = float(-(counts[counts > 0] * np.log(counts[counts > 0])).sum() / np.log(8))
    return found
