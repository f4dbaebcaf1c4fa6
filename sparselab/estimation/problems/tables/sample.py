"""Rows to fit to and rows to test on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL = 1e-3  # a weight below this, of standardised columns and target, does nothing


@dataclass(frozen=True)
class TableSample:
    """X: (n, d), y: (n,). The last ``noise_columns`` of the d columns have nothing to do with y."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    noise_columns: int

    def measure(self, fitted: Any) -> dict[str, float]:
        """``error``: mean square over the variance of the test targets.

        ``sparsity``: share of |coef_| below 0.001; ``noise_kept``: share of the noise columns that are not; ``noise_weight``:
        the share of |coef_| that they carry.
        """
        off = self.y_test - fitted.predict(self.X_test)
        weights = np.abs(np.ravel(fitted.coef_))
        scores = {"error": float((off**2).mean() / self.y_test.var()), "sparsity": float((weights < SMALL).mean())}
        if self.noise_columns:
            noise = weights[-self.noise_columns :]
            scores["noise_kept"] = float((noise >= SMALL).mean())
            scores["noise_weight"] = float(noise.sum() / weights.sum()) if weights.any() else 0.0
        return scores
