"""Estimators of the graph of a linear structural equation model, as scikit-learn estimators.

After ``fit(X)``: ``adjacency_`` (d, d), acyclic, weight of the edge i -> j at (i, j); ``raw_weights_`` before pruning;
``noise_scale_`` (the estimated standard deviations) where the rule has them; ``n_iter_``. ``score(X)`` is minus the
penalised score of the raw weights on ``X``: larger is better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LassoLarsIC, LinearRegression
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked
from sparselab.estimation.estimators.dag.path import Path, Solution, residual_of, solve
from sparselab.estimation.estimators.dag.prune import to_dag
from sparselab.estimation.estimators.dag.scores import EqualVariances, LeastSquares, UnequalVariances

SCALES = {"ev": EqualVariances, "nv": UnequalVariances}


def covariance_of(data: np.ndarray) -> np.ndarray:
    """Return X^T X / n of centred columns.

    Args:
        data: (n, d)

    Returns:
        (d, d) float64.
    """
    centred = data - data.mean(axis=0)
    return centred.T @ centred / len(data)


class _Graph(BaseEstimator, ABC):
    """Base of the estimators here."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Estimate the graph of ``X``, (n, d) samples. ``y`` is there for pipelines and ignored."""
        self._estimate(self._checked(X))
        self.adjacency_ = to_dag(self.raw_weights_, self.threshold)
        return self

    def _checked(self, X: Any) -> np.ndarray:
        return checked(self, X, dtype=np.float64, ensure_min_samples=2, ensure_min_features=2)

    def score_graph(self, true: Any) -> dict[str, float]:
        """SHD, FDR, TPR ... of ``adjacency_`` against the true (d, d) graph."""
        from sparselab.estimation.problems.graphs.compare import compare

        check_is_fitted(self)
        return compare(np.asarray(true), self.adjacency_)

    @abstractmethod
    def _estimate(self, data: np.ndarray) -> None:
        """Set ``raw_weights_``, (d, d), and what else is known of ``data``, (n, d)."""


class DAGMA(_Graph):
    """DAGMA (Bello et al. 2022, arXiv 2209.08037): least squares, l1 and the log-determinant, along a central path.

    lambda1: weight of |W|_1, in units of the data squared. The other parameters are those of
    :class:`~.path.Path`; threshold: see :func:`~.prune.to_dag`.
    """

    def __init__(
        self,
        lambda1: float = 0.05,
        stages: int = 4,
        s: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7),
        mu_init: float = 1.0,
        mu_factor: float = 0.1,
        warm_iter: int = 20_000,
        max_iter: int = 70_000,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.99, 0.999),
        checkpoint: int = 1_000,
        tol: float = 1e-6,
        domain_tol: float = 1e-16,
        threshold: float = 0.3,
    ):
        self.lambda1 = lambda1
        self.stages = stages
        self.s = s
        self.mu_init = mu_init
        self.mu_factor = mu_factor
        self.warm_iter = warm_iter
        self.max_iter = max_iter
        self.lr = lr
        self.betas = betas
        self.checkpoint = checkpoint
        self.tol = tol
        self.domain_tol = domain_tol
        self.threshold = threshold

    def _rule(self) -> LeastSquares:
        return LeastSquares()

    def _path(self) -> Path:
        return Path(
            self.lambda1, self.stages, tuple(self.s), self.mu_init, self.mu_factor, self.warm_iter, self.max_iter,
            self.lr, tuple(self.betas), self.checkpoint, self.tol, self.domain_tol,
        )  # fmt: skip

    def fit_each(self, samples: Sequence[Any]) -> list[Any]:
        """A fitted copy of this estimator for each of some samples of the same columns: ``fit``, bit for bit, but faster."""
        copies = [clone(self) for _ in samples]
        covariances = np.array([self._covariance(copy._checked(X)) for copy, X in zip(copies, samples, strict=True)])
        for copy, found in zip(copies, solve(covariances, self._rule(), self._path()), strict=True):
            copy._take(found)
            copy.adjacency_ = to_dag(copy.raw_weights_, copy.threshold)
        return copies

    def _estimate(self, data: np.ndarray) -> None:
        self._take(solve(self._covariance(data)[None], self._rule(), self._path())[0])

    @staticmethod
    def _covariance(data: np.ndarray) -> np.ndarray:
        covariance = covariance_of(data)
        if not np.diag(covariance).min() > 0:
            raise ValueError("a column of X is constant: the noise of its node cannot be estimated")
        return covariance

    def _take(self, found: Solution) -> None:
        self.raw_weights_ = found.weights
        self.n_iter_ = found.iterations
        self.converged_ = found.converged
        self.retries_ = found.retries
        self._scale = found.scale

    def score(self, X: Any, y: Any = None) -> float:
        """Minus (smooth score + lambda1 |W|_1) of the fitted weights and noise scales on ``X``."""
        check_is_fitted(self)
        covariance = covariance_of(checked(self, X, dtype=np.float64, reset=False))
        smooth = float(self._rule().value(residual_of(self.raw_weights_, covariance), self._scale))
        return -(smooth + self.lambda1 * float(np.abs(self.raw_weights_).sum()))


class CoLiDE(DAGMA):
    """CoLiDE (Saboksayr et al. 2024, arXiv 2310.02895): the noise's scale is estimated together with the weights.

    variance: ``ev`` (one standard deviation) or ``nv`` (one for each node). lambda1 needs no retuning when the noise
    changes. sigma_floor: the least standard deviation, as a fraction of the smallest one of a column (the paper's text:
    0.01), or None for none (the released code).
    """

    def __init__(
        self,
        variance: str = "ev",
        lambda1: float = 0.05,
        stages: int = 4,
        s: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7),
        mu_init: float = 1.0,
        mu_factor: float = 0.1,
        warm_iter: int = 20_000,
        max_iter: int = 70_000,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.99, 0.999),
        checkpoint: int = 1_000,
        tol: float = 1e-6,
        domain_tol: float = 1e-6,
        threshold: float = 0.3,
        sigma_floor: float | None = None,
    ):
        super().__init__(
            lambda1,
            stages,
            s,
            mu_init,
            mu_factor,
            warm_iter,
            max_iter,
            lr,
            betas,
            checkpoint,
            tol,
            domain_tol,
            threshold,
        )
        self.variance = variance
        self.sigma_floor = sigma_floor

    def _rule(self) -> LeastSquares:
        if self.variance not in SCALES:
            raise ValueError(f"variance={self.variance!r}: one of {', '.join(SCALES)}")
        return SCALES[self.variance](self.sigma_floor)

    def _take(self, found: Solution) -> None:
        super()._take(found)
        self.noise_scale_ = found.scale


class SortNRegress(_Graph):
    """Nodes sorted by variance, each regressed on those before it (Reisach et al. 2021, arXiv 2102.13647).

    The regression is LassoLars with columns weighted by the size of their least-squares coefficients; ``criterion``
    (``bic`` or ``aic``) picks the penalty.
    """

    def __init__(self, criterion: str = "bic", threshold: float = 0.3):
        self.criterion = criterion
        self.threshold = threshold

    def _estimate(self, data: np.ndarray) -> None:
        order = np.argsort(data.var(axis=0), kind="stable")
        weights = np.zeros((data.shape[1], data.shape[1]))
        for position, node in enumerate(order[1:], start=1):
            before = order[:position]
            sizes = np.abs(LinearRegression().fit(data[:, before], data[:, node]).coef_)
            lasso = LassoLarsIC(criterion=self.criterion).fit(data[:, before] * sizes, data[:, node])
            weights[before, node] = lasso.coef_ * sizes
        self.raw_weights_ = weights
        self.n_iter_ = data.shape[1] - 1

    def score(self, X: Any, y: Any = None) -> float:
        """Minus half the residual variance on ``X``, summed over nodes."""
        check_is_fitted(self)
        covariance = covariance_of(checked(self, X, dtype=np.float64, reset=False))
        return -0.5 * float(residual_of(self.raw_weights_, covariance).sum())
