"""Penalised regression with random effects and heavy tails, as a scikit-learn estimator. A stand-in, not the thesis's model."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d

from sparselab.estimation.estimators.checks import checked, is_whole, number, one_of, whole
from sparselab.estimation.estimators.concave.learner import standardised
from sparselab.estimation.estimators.concave.penalties import PENALTIES, SHAPES, penalty_of, soft
from sparselab.estimation.estimators.heavy_tails.conjugate import Composite, Minimum, descend
from sparselab.estimation.estimators.heavy_tails.likelihood import Grouped, Likelihood
from sparselab.estimation.estimators.heavy_tails.tsallis import degrees

Array = np.ndarray
FARTHEST = 10.0  # |log| of sigma and of G's diagonal: as good as 0 and infinity
NORMAL = 1.482602218505602  # standard deviation of a normal variable over its median absolute deviation
NOTHING = 1e6  # a penalty under which nothing is left
LEAST = 0.01  # the smallest penalty of a path over the largest
SOLVERS = ("prox_ncg", "prox")


class TsallisMixedRegressor(RegressorMixin, BaseEstimator):
    """Regression of grouped rows whose errors and random effects follow a joint Student t, under SCAD, MCP or l1.

    A stand-in for the third part of the thesis, whose model could not be read. y_i = b_0 + X_i b + Z_i u_i + e_i, jointly t
    with scatter sigma² (I + Z_i G Z_i'), G diagonal; the same degrees of freedom for every group, those of a single row with
    entropic index q: nu = (3 - q) / (q - 1). Minimised: negative log-likelihood / n + sum of p(b_j), over standardised columns
    and y in units of its median absolute deviation.

    q:         entropic index in [1, 3); 1 is Gaussian, larger is heavier-tailed.
    penalty:   ``scad`` (with ``a``), ``mcp`` (``gamma``) or ``l1``. lam: its slope at 0, at least 0; None: of ``n_lams``
               that fall from where all of b is 0 to 1 % of it, with warm starts, the one with the smallest BIC.
    slopes:    columns with a random slope beside the random intercept.
    solver:    ``prox_ncg`` (proximal nonlinear conjugate gradients) or ``prox`` (proximal gradient), with the same line search.
    tol:       largest entry of the prox-gradient residual. max_iter: most steps.

    After ``fit``: ``coef_`` (p,), ``intercept_``, ``sigma_``, ``random_scale_`` (1 + slopes,) standard deviations of the random
    effects, ``random_effects_`` (groups, 1 + slopes), ``n_iter_``, ``n_evaluations_``, ``objective_``, ``converged_``. Without
    ``groups`` every row is its own, and there are no random effects. ``predict`` is of the fixed effects.
    """

    standin = True

    def __init__(
        self,
        q: float = 1.2,
        penalty: str = "scad",
        a: float = 3.7,
        gamma: float = 3.0,
        lam: float | None = 0.02,
        n_lams: int = 10,
        slopes: tuple[int, ...] = (),
        solver: str = "prox_ncg",
        tol: float = 1e-5,
        max_iter: int = 2000,
    ):
        self.q = q
        self.penalty = penalty
        self.a = a
        self.gamma = gamma
        self.lam = lam
        self.n_lams = n_lams
        self.slopes = slopes
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, groups: Any = None) -> TsallisMixedRegressor:
        """Fit to X, (n, p), y, (n,), and groups, (n,) labels, or None."""
        self._check()
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = y.astype(np.float64)
        Z, labels = self._groups(X, groups)
        A, scale, centre = standardised(X)
        middle = float(np.median(y))
        unit = NORMAL * float(np.median(np.abs(y - middle))) or float(y.std()) or 1.0
        rows = Grouped.of(A, (y - middle) / unit, Z, labels)
        likelihood = Likelihood(rows, degrees(self.q))
        width = A.shape[1]
        theta = self._best(likelihood, np.zeros(width + 1 + Z.shape[1]), width)
        self.coef_ = unit * np.divide(theta[1:width], scale, out=np.zeros_like(scale), where=scale > 0)
        self.intercept_ = float(middle + unit * theta[0] - centre @ self.coef_)
        self.sigma_ = unit * float(np.exp(theta[width]))
        self.random_scale_ = self.sigma_ * np.exp(theta[width + 1 :] / 2)
        self.random_effects_ = unit * likelihood.effects(theta)
        return self

    def predict(self, X: Any) -> Array:
        """(n,) predictions of the fixed effects."""
        check_is_fitted(self)
        return checked(self, X, dtype=np.float64, reset=False) @ self.coef_ + self.intercept_

    def _check(self) -> None:
        """ValueError for an option that makes no sense."""
        number(self, "q", 1.0, 3.0, closed=True)
        one_of(self, "penalty", PENALTIES)
        one_of(self, "solver", SOLVERS)
        if self.penalty in SHAPES:
            number(self, SHAPES[self.penalty], PENALTIES[self.penalty].least_shape)
        if self.lam is not None:
            number(self, "lam", 0.0, closed=True)
        whole(self, "n_lams", 2)
        number(self, "tol", 0.0)
        whole(self, "max_iter")

    def _groups(self, X: Array, groups: Any) -> tuple[Array, Array]:
        """(Z, labels): the random effects' columns, (n, k), and the group of each row, 0, 1, … ."""
        if groups is None:
            if self.slopes:
                raise ValueError(f"slopes={self.slopes!r}: random slopes need groups; give groups to fit")
            return np.zeros((len(X), 0)), np.arange(len(X))
        names = column_or_1d(groups)
        if len(names) != len(X):
            raise ValueError(f"groups has {len(names)} entries, and X has {len(X)} rows; give one for each")
        if names.dtype.kind == "f" and np.isnan(names).any():
            raise ValueError("groups contains NaN; name the group of each row")
        columns = self.slopes if isinstance(self.slopes, list | tuple) else [None]
        if not all(is_whole(column) and 0 <= column < X.shape[1] for column in columns):
            raise ValueError(f"slopes={self.slopes!r}: X has columns 0 to {X.shape[1] - 1}; list some of those")
        return np.column_stack([np.ones(len(X)), X[:, list(self.slopes)]]), np.unique(names, return_inverse=True)[1]

    def _best(self, likelihood: Likelihood, theta: Array, width: int) -> Array:
        """The minimiser for lam, or for the lam with the smallest BIC; sets what is reported about the work."""
        self.n_iter_ = self.n_evaluations_ = 0
        self.converged_ = True
        n, best, least = len(likelihood.rows.y), theta, np.inf
        lams: list[Any] = [self.lam]
        if self.lam is None:  # the null model: no slope is worth as much as this penalty
            theta = self._solved(likelihood, theta, width, NOTHING).theta
            top = float(np.abs(likelihood.value_and_gradient(theta)[1][1:width]).max())
            lams = [*np.geomspace(top, LEAST * top, self.n_lams)] if top > 0 else [NOTHING]
        for lam in lams:
            found = self._solved(likelihood, theta, width, float(lam))
            theta = found.theta
            loss = likelihood.value_and_gradient(theta)[0]
            bic = 2 * n * loss + np.log(n) * np.count_nonzero(theta[1:width])
            if bic < least:
                best, least, self.lam_, self.objective_ = theta, bic, float(lam), found.values[-1]
        return best

    def _solved(self, likelihood: Likelihood, start: Array, width: int, lam: float) -> Minimum:
        """Descend from ``start`` at one lam."""
        objective = self._objective(likelihood, width, lam)
        found = descend(objective, start, self.tol, self.max_iter, conjugate=self.solver == "prox_ncg")
        self.n_iter_ += len(found.values) - 1
        self.n_evaluations_ += found.evaluations
        self.converged_ = self.converged_ and found.converged
        return found

    def _objective(self, likelihood: Likelihood, width: int, lam: float) -> Composite:
        """The smooth part (likelihood and the penalty's concave part), the l1 part, and the proximal map."""
        penalty = penalty_of(self.penalty, lam, self.a, self.gamma)

        def smooth(theta: Array) -> tuple[float, Array]:
            value, gradient = likelihood.value_and_gradient(theta)
            b = theta[1:width]
            gradient[1:width] += penalty.concave_slope(b)
            return value + float(penalty.concave(b).sum()), gradient

        def prox(theta: Array, step: float) -> Array:
            after = theta.copy()
            after[1:width] = soft(theta[1:width], step * lam)
            after[width:] = np.clip(theta[width:], -FARTHEST, FARTHEST)
            return after

        return Composite(smooth, lambda theta: lam * float(np.abs(theta[1:width]).sum()), prox)
