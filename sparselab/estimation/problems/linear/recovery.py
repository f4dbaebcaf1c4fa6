"""Scores of a sparse coefficient vector against the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def recovery(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Scores of ``found``, (p,), against ``true``, (p,); the intercept is in neither.

    ``error``: |found - true|² / |true|². ``error_max``: the largest of the entries. ``ppv``: share of the non-zeros found that
    are true (1 where none is found); ``npv``: of the zeros found. ``active``: non-zeros found. ``sparsity``: share of zeros.
    """
    on, real = found != 0, true != 0
    return {
        "error": float(((found - true) ** 2).sum() / (true**2).sum()),
        "error_max": float(np.abs(found - true).max()),
        "ppv": float((on & real).sum() / on.sum()) if on.any() else 1.0,
        "npv": float((~on & ~real).sum() / (~on).sum()) if not on.all() else 1.0,
        "active": float(on.sum()),
        "sparsity": float((~on).mean()),
    }


@dataclass(frozen=True)
class SparseSample:
    """X: (n, p), y: (n,), coef: (p,) the true coefficients. facts: sizes of the draw, for axes."""

    X: Any
    y: np.ndarray
    coef: np.ndarray
    facts: dict[str, float]

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of ``fitted.coef_``, (p,) or (1, p): see :func:`recovery`."""
        return {**recovery(np.ravel(fitted.coef_), self.coef), **self.facts}
