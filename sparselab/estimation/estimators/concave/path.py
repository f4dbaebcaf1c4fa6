"""Solutions along falling penalties, with warm starts and the sequential strong rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sparselab.estimation.estimators.concave.descent import Objective, descend
from sparselab.estimation.estimators.concave.losses import Loss
from sparselab.estimation.estimators.concave.penalties import penalty_of

Array = np.ndarray
RULES = ("none", "correct", "repo")
SLACK = 1e-6  # how far above lam, relatively, the slope at a zero may be before it counts as a violation


@dataclass(frozen=True)
class Recipe:
    """How each point of a path is solved."""

    penalty: str
    a: float
    gamma: float
    solver: str
    strong_rule: str
    tol: float
    max_iter: int


@dataclass
class Path:
    """Solutions ``coefs``, (points, 1 + p), at penalties ``lams``, with the work that they took.

    violations: columns that the strong rule had dropped and that had to come back (``correct``), or that ought to have
    (``repo``, which never looks).
    """

    lams: Array
    coefs: Array
    n_iter: int = 0
    violations: int = 0
    unsettled: int = 0
    kept: list[int] = field(default_factory=list)


def slopes(A: Array, y: Array, b: Array, loss: Loss) -> Array:
    """|derivative of the loss| by each penalised coordinate, (p,)."""
    return np.abs(A[:, 1:].T @ loss.slope(A @ b, y))


def lam_max(A: Array, y: Array, loss: Loss, skip_first: bool = False) -> float:
    """Return the smallest penalty at which all penalised coordinates are 0.

    ``skip_first`` leaves the first covariate out, as the paper's logistic code does.
    """
    found = slopes(A, y, _null(A, y, loss), loss)
    return float((found[1:] if skip_first and len(found) > 1 else found).max())


def grid(top: float, count: int) -> Array:
    """(count,) penalties evenly spaced from ``top`` down, 0 excluded."""
    return np.linspace(top, 0.0, count, endpoint=False)


def follow(A: Array, y: Array, loss: Loss, lams: Array, recipe: Recipe) -> Path:
    """Solve at each of ``lams``, in order, each from the solution before it.

    The strong rule drops column j where |slope_j| < 2 lam_new - lam_old. ``correct``: of the loss's own slope, with a look
    at the stationarity of what was dropped afterwards, and another fit with the violators. ``repo``: as the paper's code has
    it, a column that was kept once stays, nothing is kept at the first penalty, nothing is looked at afterwards, and the
    slope of the linear loss is halved (it divides by 2n), so that more is dropped than the rule allows.
    """
    width = A.shape[1]
    path = Path(lams, np.zeros((len(lams), width)))
    b, before = _null(A, y, loss), float(lams[0])
    ever = np.zeros(width - 1, bool)
    for number, lam in enumerate(map(float, lams)):
        keep = np.ones(width - 1, bool)
        if recipe.strong_rule == "correct":
            keep = (slopes(A, y, b, loss) >= 2 * lam - before) | (b[1:] != 0)
        elif recipe.strong_rule == "repo":
            if number:
                ever |= loss.released_share * slopes(A, y, b, loss) >= 2 * lam - before
            keep = ever
        while True:
            b = _on(A, y, loss, lam, b, keep, recipe, path)
            if recipe.strong_rule == "none":
                break
            missed = ~keep & (slopes(A, y, b, loss) > lam * (1 + SLACK) + recipe.tol)
            path.violations += int(missed.sum())
            if recipe.strong_rule == "repo" or not missed.any():
                break
            keep = keep | missed
        path.coefs[number], before = b, lam
        path.kept.append(int(keep.sum()))
    return path


def _null(A: Array, y: Array, loss: Loss) -> Array:
    """(1 + p,) the fit of the intercept alone."""
    b = np.zeros(A.shape[1])
    b[0] = loss.link(float(y.mean()))
    return b


def _on(A: Array, y: Array, loss: Loss, lam: float, start: Array, keep: Array, recipe: Recipe, path: Path) -> Array:
    """(1 + p,) the solution with the columns of ``keep`` alone; what it cost is added to ``path``."""
    columns = np.concatenate(([True], keep))
    objective = Objective(A[:, columns], y, loss, penalty_of(recipe.penalty, lam, recipe.a, recipe.gamma))
    found = descend(recipe.solver, objective, start[columns], recipe.tol, recipe.max_iter)
    path.n_iter += found.n_iter
    path.unsettled += not found.converged
    b = np.zeros(A.shape[1])
    b[columns] = found.b
    return b
