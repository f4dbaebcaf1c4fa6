"""The Lasso by either of two solvers: |y - F v|^2 / 2N + lam |v|_1."""

from __future__ import annotations

import warnings

import numpy as np

SOLVERS = ("cd", "fista")


def lasso(
    F: np.ndarray, y: np.ndarray, lams: np.ndarray, solver: str, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the Lasso for falling penalties, each started at the one before.

    A penalty of 0 is least squares, of the least length.

    Args:
        F: (n, m) float64
        y: (n,)
        lams: (penalties,), falling
        solver: ``cd`` (scikit-learn's coordinate descent; an iteration is a sweep) or ``fista``
        tol: duality gap at which it stops, times |y|^2 / n
        max_iter: most iterations for each penalty

    Returns:
        (coefficients (m, penalties), iterations (penalties,)).
    """
    v, taken = np.zeros((F.shape[1], len(lams))), np.zeros(len(lams), int)
    if not F.shape[1]:
        return v, taken
    some = lams > 0
    if some.any() and solver == "cd":
        v[:, some], taken[some] = _descent(F, y, lams[some], tol, max_iter)
    elif some.any():
        start = np.zeros(F.shape[1])
        bound = np.float64(np.linalg.norm(F, 2)) ** 2 / len(y)
        for at in np.flatnonzero(some):
            start, taken[at] = fista(F, y, float(lams[at]), bound, start, tol, max_iter)
            v[:, at] = start
    if not some.all():
        v[:, ~some] = np.linalg.lstsq(F, y)[0][:, None]
    return v, taken


def _descent(F: np.ndarray, y: np.ndarray, lams: np.ndarray, tol: float, max_iter: int) -> tuple[np.ndarray, list[int]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # n_iter_ says it
        _, v, _, taken = lasso_path(F, y, alphas=lams, tol=tol, max_iter=max_iter, return_n_iter=True)
    return v, taken


def fista(
    F: np.ndarray, y: np.ndarray, lam: float, bound: float, start: np.ndarray, tol: float, max_iter: int
) -> tuple[np.ndarray, int]:
    """Take accelerated proximal gradients that forget their speed when it points uphill.

    Args:
        F: (n, m) float64
        y: (n,)
        lam: the penalty
        bound: largest eigenvalue of F^T F / n
        start: (m,)
        tol: as for :func:`lasso`
        max_iter: most iterations

    Returns:
        (v (m,), iterations).
    """
    v, ahead, t = start, start, 1.0
    for iteration in range(1, max_iter + 1):
        step = ahead - F.T @ (F @ ahead - y) / len(y) / bound
        new = np.sign(step) * np.maximum(np.abs(step) - lam / bound, 0)
        if (ahead - new) @ (new - v) > 0:
            t = 1.0
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, v, t = new + (t - 1) / following * (new - v), new, following
        if iteration % 10 == 0 and gap(F, y, v, lam) <= tol * (y @ y) / len(y):
            return v, iteration
    return v, max_iter


def gap(F: np.ndarray, y: np.ndarray, v: np.ndarray, lam: float) -> float:
    """The duality gap of v: how far its objective is from the least one, at most.

    Args:
        F: (n, m) float64
        y: (n,)
        v: (m,)
        lam: the penalty

    Returns:
        At least 0, in units of the objective.
    """
    left = y - F @ v
    dual = left * min(1.0, lam * len(y) / max(np.abs(F.T @ left).max(initial=0.0), 1e-300))
    objective = left @ left / 2 / len(y) + lam * np.abs(v).sum()
    return float(objective - (y @ y - (y - dual) @ (y - dual)) / 2 / len(y))
