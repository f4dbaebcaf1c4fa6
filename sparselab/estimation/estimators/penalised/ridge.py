"""A ridge regressor that learns a penalty for every feature, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sparselab.estimation.estimators.checks import is_number, number, one_line, one_of, whole
from sparselab.estimation.problems.levels.environment import Environment
from sparselab.estimation.problems.levels.penalties import Penalties
from sparselab.estimation.solvers.twolevel.penalty import VARIANTS, Settings

FEWEST = 4  # samples: two to fit and two to validate
HIGHEST = 300.0  # log-penalty: its exponential can still be squared


class _Watched(Environment):
    """An environment that ends when no coordinate of x moves by more than ``tol`` in a step."""

    def __init__(self, instance: Penalties, tol: float):
        super().__init__(instance, np.random.default_rng(0))
        self._tol, self._last = tol, instance.x0
        self.settled = False

    def over(self, x: np.ndarray) -> bool:
        self.settled = float(np.abs(x - self._last).max()) <= self._tol
        self._last = x
        return super().over(x) or self.settled


class BilevelPenaltyRegressor(RegressorMixin, BaseEstimator):
    """Ridge regression with a penalty of its own for every feature, learned on held-out samples by first-order steps.

    The lower level fits |y - Xw|² / 2n + sum of p_j w_j² / 2 to some of the samples, the upper level chooses the p_j for the
    others; both by the penalty method of Kwon et al. (2024, arXiv 2309.01753). Columns and target are standardised first,
    so penalties have no unit.

    variant:      ``double`` (``inner_steps`` lower steps for each of the penalties') or ``single`` (one).
    sigma:        weight of the upper level in the lower one; smaller is closer to the two-level problem and slower.
    lr_x:         step of the log-penalties, times sigma. max_iter: most of them; tol: the change of a log-penalty in a step
                  at which they end.
    l1:           weight of sum |w_j| in the upper level: larger, and more features are penalised away.
    start, low, high: the first and the extreme log-penalties (natural logarithm).
    val_fraction: share of the samples that is held out, in (0, 1). After that w is fitted to all samples.

    After ``fit``: ``coef_`` (features,), ``intercept_``, ``penalty_`` (features,) the learned p_j, ``n_oracle_calls_``
    (gradients of either level), ``n_iter_``, ``converged_``. Needs 4 samples; ValueError with one line for what is wrong.
    """

    def __init__(
        self,
        variant: str = "double",
        sigma: float = 0.1,
        lr_x: float = 1000.0,
        inner_steps: int = 10,
        max_iter: int = 300,
        tol: float = 1e-4,
        l1: float = 0.0,
        start: float = -3.0,
        low: float = -7.0,
        high: float = 9.0,
        val_fraction: float = 0.3,
        fit_intercept: bool = True,
        random_state: Any = None,
    ):
        self.variant = variant
        self.sigma = sigma
        self.lr_x = lr_x
        self.inner_steps = inner_steps
        self.max_iter = max_iter
        self.tol = tol
        self.l1 = l1
        self.start = start
        self.low = low
        self.high = high
        self.val_fraction = val_fraction
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> BilevelPenaltyRegressor:
        """Learn penalties and weights from X, (n, d), and y, (n,)."""
        self._check()
        with one_line():
            X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=FEWEST)
        y = y.astype(np.float64)
        rng = check_random_state(self.random_state)
        held = max(2, round(self.val_fraction * len(y)))
        if len(y) - held < 2:
            raise ValueError(
                f"val_fraction={self.val_fraction}: of {len(y)} samples fewer than 2 are left to fit; write less"
            )
        order = rng.permutation(len(y))
        centre, target = (X.mean(0), y.mean()) if self.fit_intercept else (np.zeros(X.shape[1]), 0.0)
        scale, unit = _scale(X), float(_scale(y))
        A, b = (X - centre) / scale, (y - target) / unit
        fit, val = order[held:], order[:held]
        instance = Penalties((A[fit], b[fit]), (A[val], b[val]), self.start, self.low, self.high, self.l1)
        environment = _Watched(instance, self.tol)
        inner = self.inner_steps if self.variant == "double" else 1
        settings = Settings(self.sigma, self.max_iter, self.lr_x, lr_y=1.0, lr_z=1.0, inner_steps=inner)
        found = VARIANTS[self.variant](environment, settings)
        self.penalty_ = np.exp(found.x)
        weights = np.linalg.solve(A.T @ A / len(A) + np.diag(self.penalty_), A.T @ b / len(A))
        self.coef_ = weights * unit / scale
        self.intercept_ = float(target - centre @ self.coef_)
        self.n_oracle_calls_, self.n_iter_ = environment.calls, found.steps
        self.converged_ = environment.settled
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) predictions."""
        check_is_fitted(self)
        with one_line():
            X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_

    def _check(self) -> None:
        one_of(self, "variant", VARIANTS)
        for name in ("inner_steps", "max_iter"):
            whole(self, name)
        for name in ("sigma", "lr_x"):
            number(self, name, 0.0)
        for name in ("tol", "l1"):
            number(self, name, 0.0, closed=True)
        number(self, "val_fraction", 0.0, 1.0)
        for name in ("start", "low", "high"):
            if not is_number(value := getattr(self, name)):
                raise ValueError(f"{name}={value!r}: write a finite number")
        if not self.low <= self.start <= self.high:
            raise ValueError(f"start={self.start!r}: write a number between low={self.low!r} and high={self.high!r}")
        if self.high > HIGHEST:
            raise ValueError(f"high={self.high!r}: write at most {HIGHEST:g}, penalties are its exponential")


def _scale(values: np.ndarray) -> np.ndarray:
    """Standard deviations of columns; 1 for a constant one."""
    found = values.std(0)
    return np.where(found > 1e-12 * np.abs(values).max(0, initial=1e-300), found, 1.0)
