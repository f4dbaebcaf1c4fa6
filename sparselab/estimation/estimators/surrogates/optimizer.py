"""Offline optimisation: a surrogate is fitted to scored designs, and a search climbs it from the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked, whole
from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor
from sparselab.estimation.estimators.surrogates.search import GradientAscent

Array = np.ndarray


class OfflineOptimizer(RegressorMixin, BaseEstimator):
    """Find designs with a high score from designs whose scores are known; no new score is ever asked for.

    surrogate: a :class:`SurrogateRegressor` or one of its kind. search: ``GradientAscent``, ``Reinforce`` or ``Evolution``.
    designs: how many to find; the search starts from so many rows with the highest scores. random_state: both parts' draws.

    After ``fit``: ``designs_`` (designs, features), ``starts_`` (the same shape), ``surrogate_``. ``predict`` is the
    surrogate's.
    """

    def __init__(self, surrogate: Any = None, search: Any = None, designs: int = 128, random_state: Any = None):
        self.surrogate = surrogate
        self.search = search
        self.designs = designs
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> OfflineOptimizer:
        """Fit the surrogate to ``X`` (n, features) and ``y`` (n,), and search."""
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        count = min(whole(self, "designs"), len(X))
        search = GradientAscent() if self.search is None else self.search
        if isinstance(search, type) or not hasattr(search, "check") or not hasattr(search, "run"):
            raise ValueError(f"search={search!r}: write GradientAscent(), Reinforce() or Evolution()")
        search.check(X.shape[1])
        seeds = check_random_state(self.random_state).randint(2**31, size=2)
        surrogate = SurrogateRegressor() if self.surrogate is None else clone(self.surrogate)
        self.surrogate_ = surrogate.set_params(random_state=int(seeds[0])).fit(X, y)
        best = np.argsort(-y, kind="stable")[:count]
        rows = surrogate.standardised(X)
        self.starts_ = X[best]
        surface, rng = surrogate.surface_.astype(np.float32), np.random.default_rng(seeds[1])
        self.designs_ = surrogate.restored(search.run(surface, rows[best], rows, rng))
        if not np.isfinite(self.designs_).all():
            raise ValueError("the search left all bounds: write a smaller rate")
        return self

    def predict(self, X: Any) -> Array:
        """(n,) the surrogate's prediction."""
        check_is_fitted(self)
        X = checked(self, X, dtype=np.float64, reset=False)
        return np.asarray(self.surrogate_.predict(X))
