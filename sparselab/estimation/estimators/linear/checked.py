"""Base of linear regressors without intercept: checked input, and one line for what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked, whole

FEW = 4  # non-zeros that are looked for where nobody says how many


class Checked(RegressorMixin, BaseEstimator):
    """Base: ``coef_`` (d,), ``intercept_`` 0. Dense finite data of two samples at least; others are refused in one line."""

    coef_: np.ndarray

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """``X`` (n, d) and ``y`` (n,) in float64."""
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        return X, np.asarray(y, dtype=np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """<x, coef_> for each row of ``X`` (n, d): (n,)."""
        check_is_fitted(self)
        return checked(self, X, dtype=np.float64, reset=False) @ self.coef_


def nonzeros(estimator: Any, X: np.ndarray, samples: bool = True) -> int:
    """Return the number of non-zeros to look for.

    Args:
        estimator: has an option ``k``, or None for at most FEW
        X: (n, d)
        samples: refuse more than there are samples, too: no least squares would have one answer

    Raises:
        ValueError: more than columns.
    """
    most = min(X.shape) if samples else X.shape[1]
    if estimator.k is None:
        return min(FEW, most)
    k = whole(estimator, "k")
    for count, what in ((X.shape[1], "n_features"), (len(X), "n_samples")):
        if k > count and (samples or what == "n_features"):
            raise ValueError(f"k={k}: more non-zeros than {what}={count}")
    return k
