"""Ridge regression on the columns that a feature selector keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import RidgeCV
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked
from sparselab.estimation.estimators.information.selector import MIScreen

PENALTIES = np.geomspace(1e-2, 1e5, 30)


class ScreenedRidgeRegressor(RegressorMixin, BaseEstimator):
    """A selector, then ridge regression whose penalty has the smallest leave-one-out error.

    screener: a feature selector that is fitted to (X, y); None: ``MIScreen()``. After ``fit``: ``screener_``, ``coef_`` (p,)
    with zeros for what is dropped, ``intercept_``, ``alpha_``. Columns should be standardised.
    """

    def __init__(self, screener: Any = None):
        self.screener = screener

    def fit(self, X: Any, y: Any) -> ScreenedRidgeRegressor:
        """Fit to X, (n, p), and y, (n,)."""
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=3)
        y = y.astype(np.float64)
        self.screener_ = clone(MIScreen() if self.screener is None else self.screener).fit(X, y)
        kept = self.screener_.get_support(indices=True)
        ridge = RidgeCV(PENALTIES).fit(X[:, kept], y)
        self.coef_ = np.zeros(X.shape[1])
        self.coef_[kept] = ridge.coef_
        self.intercept_, self.alpha_ = float(ridge.intercept_), float(ridge.alpha_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) predictions."""
        check_is_fitted(self)
        return checked(self, X, dtype=np.float64, reset=False) @ self.coef_ + self.intercept_
