"""Screening of columns by what each says about a target, as a scikit-learn feature selector."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin, mutual_info_classif, mutual_info_regression
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked, number, one_of, whole
from sparselab.estimation.estimators.information import information
from sparselab.estimation.estimators.information.density import RULES

Array = np.ndarray
ESTIMATORS = ("fftkde", "binned", "sklearn", "pearson")


class MIScreen(SelectorMixin, BaseEstimator):
    """Keep the columns that say most about y: mutual information, or absolute correlation (fastHDMI, arXiv 2410.10082).

    estimator:    ``fftkde`` (a kernel density on a grid), ``binned`` (a histogram whose number of bins maximises a penalised
                  likelihood), ``sklearn`` (nearest neighbours) or ``pearson`` (|correlation|).
    keep:         columns that are kept, the best ones; all where there are fewer.
    outcome:      ``continuous``, ``discrete`` or ``auto``: discrete where y has two values or is not a number.
    grid:         points of the grid: grid² of a continuous outcome, of a discrete one points a class.
    bw:           bandwidth of ``fftkde`` in standard deviations of a column, or ``silverman``, ``scott``, ``isj``. Published
                  numbers of continuous outcomes have 1: the released code computes a rule's and does not pass it on.
    clump:        None, or the largest score (of the same estimator, in nats or |correlation|) that a column may have with a
                  better one that is kept already.
    indexing:     ``correct``, or ``repo``: the released code's fault with discrete outcomes (``fftkde`` only), off.
    random_state: ``sklearn``'s noise against ties.

    After ``fit``: ``scores_`` (p,), 0 for a constant column; ``kept_`` the columns that are kept, best first;
    ``discrete_``. ``transform``, ``get_support`` and the others are scikit-learn's. ValueError, in one line, for what cannot
    be screened.
    """

    def __init__(
        self,
        estimator: str = "fftkde",
        keep: int = 50,
        outcome: str = "auto",
        grid: int = 300,
        bw: str | float = 1.0,
        clump: float | None = None,
        indexing: str = "correct",
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.keep = keep
        self.outcome = outcome
        self.grid = grid
        self.bw = bw
        self.clump = clump
        self.indexing = indexing
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> MIScreen:
        """Score the columns of X, (n, p), by y, (n,)."""
        self._check()
        X, y = checked(self, X, y, dtype=np.float64, ensure_min_samples=3)
        values = np.unique(y)
        if len(values) < 2:
            raise ValueError(f"y is {values[0]} throughout: nothing can be said about it; give another y")
        self.discrete_ = self.outcome == "discrete" or (
            self.outcome == "auto" and (len(values) == 2 or not np.issubdtype(y.dtype, np.number))
        )
        target = np.searchsorted(values, y) if self.discrete_ else y.astype(np.float64)
        live = (np.ptp(X, axis=0) > 0) & (X.std(0) > 0)  # the square of a spread below 1e-162 is 0
        self.scores_ = np.zeros(X.shape[1])
        self.scores_[live] = self._scores(X[:, live], target, self.discrete_)
        order = np.argsort(-self.scores_, kind="stable")
        self.kept_ = order[: self.keep] if self.clump is None else self._apart(X, order)
        return self

    def _get_support_mask(self) -> Array:
        check_is_fitted(self)
        mask = np.zeros(len(self.scores_), bool)
        mask[self.kept_] = True
        return mask

    def _check(self) -> None:
        """ValueError for an option that makes no sense."""
        one_of(self, "estimator", ESTIMATORS)
        one_of(self, "outcome", ("auto", "continuous", "discrete"))
        one_of(self, "indexing", ("correct", "repo"))
        whole(self, "keep")
        whole(self, "grid", 16)
        if isinstance(self.bw, str):
            one_of(self, "bw", RULES)
        else:
            number(self, "bw", 0.0)
        if self.clump is not None:
            number(self, "clump", 0.0)

    def _scores(self, X: Array, y: Array, discrete: bool) -> Array:
        """(p,) the score of each column of ``X``, none of which is constant; y: classes 0, 1, … where ``discrete``."""
        if not X.shape[1]:
            return np.zeros(0)
        if self.estimator == "pearson":
            Z, t = X - X.mean(0), y - y.mean()
            return np.abs(t @ Z) / np.sqrt((Z**2).sum(0) * (t @ t))
        if self.estimator == "sklearn":
            neighbours = mutual_info_classif if discrete else mutual_info_regression
            return neighbours(X, y, random_state=self.random_state)
        if self.estimator == "binned":
            labels = y if discrete else information.binned(y)  # once, not for each column
            return np.array([information.binned_information(x, labels, labels=True) for x in X.T])
        return np.array([self._information(x, y, discrete) for x in X.T])

    def _information(self, x: Array, y: Array, discrete: bool) -> float:
        if discrete:
            return information.class_information(x, y, self.grid, self.bw, self.indexing)
        return information.kernel_information(x, y, self.grid, self.bw)

    def _apart(self, X: Array, order: Array) -> Array:
        """The best columns, each of them unlike those before it."""
        kept: list[int] = []
        for j in map(int, order):
            if len(kept) == self.keep:
                break
            if not self.scores_[j] or all(self._scores(X[:, [i]], X[:, j], False)[0] <= self.clump for i in kept):
                kept.append(j)
        return np.array(kept, int)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
