"""Regression and classification under SCAD, MCP or l1 as scikit-learn estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked, number, one_of, whole
from sparselab.estimation.estimators.concave import path as paths
from sparselab.estimation.estimators.concave.descent import SOLVERS, Objective, descend
from sparselab.estimation.estimators.concave.losses import LOSSES
from sparselab.estimation.estimators.concave.penalties import PENALTIES, SHAPES, penalty_of

Array = np.ndarray
STARTS = ("sign", "zero")


class _Nonconvex(BaseEstimator):
    """Base of both: standardised columns, the descent, and what is reported about it."""

    _model: str

    def __init__(
        self,
        penalty: str = "scad",
        a: float = 3.7,
        gamma: float = 3.0,
        lam: float | None = 0.02,
        solver: str = "ag",
        start: str = "sign",
        tol: float = 1e-4,
        max_iter: int = 5000,
        n_lams: int = 50,
        strong_rule: str = "none",
        validation_fraction: float = 0.5,
        random_state: Any = None,
    ):
        self.penalty = penalty
        self.a = a
        self.gamma = gamma
        self.lam = lam
        self.solver = solver
        self.start = start
        self.tol = tol
        self.max_iter = max_iter
        self.n_lams = n_lams
        self.strong_rule = strong_rule
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _check(self) -> None:
        """ValueError for an option that makes no sense."""
        one_of(self, "penalty", PENALTIES)
        one_of(self, "solver", SOLVERS)
        one_of(self, "start", STARTS)
        one_of(self, "strong_rule", paths.RULES)
        if self.penalty in SHAPES:
            number(self, SHAPES[self.penalty], PENALTIES[self.penalty].least_shape)
        if self.lam is not None:
            number(self, "lam", 0.0)
        number(self, "tol", 0.0)
        number(self, "validation_fraction", 0.0, 1.0)
        whole(self, "max_iter")
        whole(self, "n_lams", 2)

    def _fit(self, X: Array, y: Array) -> None:
        """Fit to checked X, (n, p), and y, (n,) of floats."""
        if self.lam is None:
            b, scale, centre = self._along_a_path(X, y)
        else:
            A, scale, centre = standardised(X)
            objective = Objective(A, y, LOSSES[self._model], penalty_of(self.penalty, self.lam, self.a, self.gamma))
            self.start_ = self._first(A, y)
            found = descend(self.solver, objective, self.start_, self.tol, self.max_iter)
            b, self.lam_, self.n_iter_, self.converged_ = found.b, float(self.lam), found.n_iter, found.converged
            self.objective_, self.objectives_ = objective, np.array(found.values)
            self.violations_ = 0
        coef = np.divide(b[1:], scale, out=np.zeros_like(scale), where=scale > 0)
        self._keep(coef, float(b[0] - centre @ coef))

    def _first(self, A: Array, y: Array) -> Array:
        """(1 + p,) the start: signs of the covariances with y, or zeros; the intercept starts at 0."""
        return (
            np.sign((y - y.mean()) @ A) * (np.arange(A.shape[1]) > 0) if self.start == "sign" else np.zeros(A.shape[1])
        )

    def _along_a_path(self, X: Array, y: Array) -> tuple[Array, Array, Array]:
        """(b, scale, centre) of the penalty that predicts held-out rows best."""
        held = round(self.validation_fraction * len(y))
        if held < 1 or len(y) - held < 2:
            raise ValueError(
                f"validation_fraction={self.validation_fraction}: of {len(y)} samples {len(y) - held} are left to fit and "
                f"{held} to choose lam; write lam=0.02, say, or give more"
            )
        order = check_random_state(self.random_state).permutation(len(y))
        fit, val = order[held:], order[:held]
        A, scale, centre = standardised(X[fit])
        loss, unit = LOSSES[self._model], self._unit(y[fit])
        target = y[fit] / unit
        recipe = paths.Recipe(self.penalty, self.a, self.gamma, self.solver, self.strong_rule, self.tol, self.max_iter)
        skip = self._model == "logistic" and self.strong_rule == "repo"
        top = paths.lam_max(A, target, loss, skip)
        found = paths.follow(A, target, loss, paths.grid(top, self.n_lams) if top else np.zeros(1) + 1.0, recipe)
        columns = np.divide(X[val] - centre, scale, out=np.zeros_like(X[val]), where=scale > 0)
        eta = found.coefs[:, :1] + found.coefs[:, 1:] @ columns.T
        best = int(np.argmin([loss.value(row, y[val] / unit) for row in eta]))
        self.path_ = found
        self.lam_, self.n_iter_, self.converged_ = float(found.lams[best]) * unit, found.n_iter, not found.unsettled
        self.violations_ = found.violations
        return found.coefs[best] * unit, scale, centre

    def _unit(self, y: Array) -> float:
        """The unit that targets of a path are measured in."""
        return 1.0

    def _keep(self, coef: Array, intercept: float) -> None:
        raise NotImplementedError


def standardised(X: Array) -> tuple[Array, Array, Array]:
    """(A, scale, centre): a column of ones and the columns of ``X`` with mean 0 and mean square 1, constant ones as zeros.

    scale: (p,) standard deviations (of n, not n - 1), 0 for a constant column. centre: (p,) means.
    """
    centre, scale = X.mean(0), X.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(centre), 1e-300), scale, 0.0)
    columns = np.divide(X - centre, scale, out=np.zeros_like(X), where=scale > 0)
    return np.column_stack([np.ones(len(X)), columns]), scale, centre


class NonconvexRegressor(RegressorMixin, _Nonconvex):
    """Least squares under SCAD, MCP or l1, by accelerated gradient (arXiv 2009.10629) or its rivals.

    Minimises |y - b_0 - X b|² / 2n + sum of p(b_j) over standardised columns (ddof 0); the intercept is free.

    penalty: ``scad`` (with ``a`` > 2), ``mcp`` (``gamma`` > 1) or ``l1``. lam: the slope of the penalty at 0, in units of y;
    None: the one of ``n_lams`` along a path, from the largest that does anything down, that predicts a random
    ``validation_fraction`` of the rows best; then the other rows alone are fitted to, y is measured in standard deviations
    while fitting, and ``strong_rule`` (none, correct or repo) says which columns a point of the path leaves out. solver: ``ag``
    (proposed step parameters), ``ag_original`` (those of Ghadimi & Lan), ``prox`` (proximal gradient) or ``cd`` (coordinate
    descent). start: ``sign`` (of the covariances with y) or ``zero``; a path starts from zero. tol: of the largest
    generalised gradient (ag) or change of a coefficient (prox, cd). max_iter: steps or sweeps at one penalty.
    random_state: the rows that are held out.

    After ``fit``: ``coef_`` (p,), ``intercept_``, ``lam_``, ``n_iter_``, ``converged_``, ``violations_`` (columns that the
    strong rule dropped against stationarity); with one lam ``objective_``, ``start_`` and ``objectives_``, F of iterates 0, 1,
    …; with lam=None ``path_``. ValueError, in one line, for what cannot be fitted.
    """

    _model = "linear"

    def fit(self, X: Any, y: Any) -> NonconvexRegressor:
        """Fit to X, (n, p), and y, (n,)."""
        self._check()
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self._fit(X, y.astype(np.float64))
        return self

    def predict(self, X: Any) -> Array:
        """(n,) predictions."""
        check_is_fitted(self)
        return checked(self, X, dtype=np.float64, reset=False) @ self.coef_ + self.intercept_

    def _unit(self, y: Array) -> float:
        return float(y.std()) or 1.0

    def _keep(self, coef: Array, intercept: float) -> None:
        self.coef_, self.intercept_ = coef, intercept


class NonconvexClassifier(ClassifierMixin, _Nonconvex):
    """Logistic regression of two classes under SCAD, MCP or l1, as :class:`NonconvexRegressor`.

    The loss is half of the mean log loss, as in the paper's code: lam counts double against scikit-learn's. ``cd`` is
    refused. After ``fit`` ``classes_`` (2,), ``coef_`` (1, p) and ``intercept_`` (1,) are shaped as scikit-learn's.
    """

    _model = "logistic"

    def fit(self, X: Any, y: Any) -> NonconvexClassifier:
        """Fit to X, (n, p), and y, (n,) of two labels."""
        self._check()
        if self.solver == "cd":
            raise ValueError("solver='cd': its thresholds are those of linear models; write solver='ag'")
        X, y = checked(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            kind = "class" if len(self.classes_) == 1 else "classes"
            raise ValueError(
                f"y has {len(self.classes_)} {kind}. Only binary classification is supported: give two classes"
            )
        self._fit(X, labels.astype(np.float64))
        return self

    def decision_function(self, X: Any) -> Array:
        """(n,) log odds of ``classes_[1]``."""
        check_is_fitted(self)
        return checked(self, X, dtype=np.float64, reset=False) @ self.coef_[0] + self.intercept_[0]

    def predict_proba(self, X: Any) -> Array:
        """(n, 2) probabilities of ``classes_``."""
        one = 0.5 * np.tanh(self.decision_function(X) / 2) + 0.5
        return np.column_stack([1 - one, one])

    def predict(self, X: Any) -> Array:
        """(n,) labels."""
        above = self.decision_function(X) > 0
        return self.classes_[above.astype(int)]

    def _keep(self, coef: Array, intercept: float) -> None:
        self.coef_, self.intercept_ = coef[None], np.array([intercept])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
