"""Regressors to compare with: orthogonal matching pursuit, least squares, and the best of all supports."""

from __future__ import annotations

import math
import warnings
from itertools import combinations, islice
from typing import Any

import numpy as np

from sparselab.estimation.estimators.linear.checked import Checked, nonzeros

MOST = 500_000  # supports that are tried one by one
PIECE = 2048  # at a time


class MatchingPursuit(Checked):
    """Orthogonal matching pursuit on columns scaled to one length (scikit-learn's), stopped after k steps.

    k: steps; None: 4, or fewer where there are fewer columns or samples. After ``fit``: ``coef_``, ``n_iter_``.
    """

    def __init__(self, k: int | None = None):
        self.k = k

    def fit(self, X: Any, y: Any) -> MatchingPursuit:
        """Fit to ``X`` (n, d) and ``y`` (n,). ValueError, in one line, for what cannot be fitted."""
        from sklearn.linear_model import orthogonal_mp

        X, y = self._checked(X, y)
        k = nonzeros(self, X)
        norms = np.linalg.norm(X, axis=0)
        there = np.flatnonzero(norms > 1e-12 * norms.max())
        self.coef_, self.intercept_, self.n_iter_ = np.zeros(X.shape[1]), 0.0, k
        if len(there):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # columns that depend on each other end it early
                found = orthogonal_mp(X[:, there] / norms[there], y, n_nonzero_coefs=min(k, len(there)))
            self.coef_[there] = np.ravel(found) / norms[there]
        return self


class LeastSquares(Checked):
    """Ordinary least squares without intercept; of many solutions the shortest. After ``fit``: ``coef_``, ``rank_``."""

    def fit(self, X: Any, y: Any) -> LeastSquares:
        """Fit to ``X`` (n, d) and ``y`` (n,). ValueError, in one line, for what cannot be fitted."""
        X, y = self._checked(X, y)
        self.coef_, _, self.rank_, _ = np.linalg.lstsq(X, y)
        self.intercept_ = 0.0
        return self


class BestSubset(Checked):
    """Least squares on the support of k columns that fits best, found by trying all of them: d^k time.

    k: non-zeros; None: 4, or fewer where there are fewer columns or samples. ValueError where there are more than
    500,000 supports. After ``fit``: ``coef_``, ``support_`` (k,).
    """

    def __init__(self, k: int | None = None):
        self.k = k

    def fit(self, X: Any, y: Any) -> BestSubset:
        """Fit to ``X`` (n, d) and ``y`` (n,). ValueError, in one line, for what cannot be fitted."""
        X, y = self._checked(X, y)
        d, k = X.shape[1], nonzeros(self, X)
        if (count := math.comb(d, k)) > MOST:
            raise ValueError(f"k={k}: n_features={d} have {count:,} supports, and at most {MOST:,} are tried")
        supports = combinations(range(d), k)
        best, most = np.arange(k), -1.0
        while piece := list(islice(supports, PIECE)):
            T = np.array(piece)
            U, sizes, _ = np.linalg.svd(X[:, T].transpose(1, 0, 2), full_matrices=False)
            seen = sizes > 1e-12 * np.maximum(sizes[:, :1], 1e-300)
            explained = np.where(seen, (y @ U) ** 2, 0).sum(1)
            at = int(np.argmax(explained))
            if explained[at] > most:
                best, most = T[at], float(explained[at])
        self.support_, self.intercept_ = best, 0.0
        self.coef_ = np.zeros(d)
        self.coef_[best] = np.linalg.lstsq(X[:, best], y)[0]
        return self
