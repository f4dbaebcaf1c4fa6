"""Accelerated gradient, proximal gradient and coordinate descent for f(b) + sum of p(b_j), the intercept b_0 free.

Each method is an iterator over its iterates with their objective; :func:`descend` drives it. Iterate 0 is the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sparselab.estimation.estimators.concave.losses import Loss, Squared
from sparselab.estimation.estimators.concave.penalties import Penalty, soft

Array = np.ndarray


@dataclass(frozen=True)
class Objective:
    """F(b) = loss(A b, y) + sum over j >= 1 of penalty(b_j). A: (n, 1 + p), its first column ones. y: (n,)."""

    A: Array
    y: Array
    loss: Loss
    penalty: Penalty

    def value(self, b: Array, eta: Array | None = None) -> float:
        """Return F(b); ``eta`` is A b where it is known."""
        return self.loss.value(self.A @ b if eta is None else eta, self.y) + float(self.penalty.value(b[1:]).sum())

    def smooth(self, b: Array) -> tuple[float, Array]:
        """Return F(b) and the gradient of its smooth part, loss + q, (1 + p,)."""
        eta = self.A @ b
        gradient = self.A.T @ self.loss.slope(eta, self.y)
        gradient[1:] += self.penalty.concave_slope(b[1:])
        return self.value(b, eta), gradient

    def prox(self, b: Array, step: float) -> Array:
        """Return the proximal map of step · lam |b|, the intercept untouched."""
        found = soft(b, step * self.penalty.lam)
        found[0] = b[0]
        return found

    def lipschitz(self) -> float:
        """Return the Lipschitz constant of the gradient of the smooth part."""
        return max(self.loss.curvature(self.A), self.penalty.curvature)

    def stationarity(self, b: Array) -> float:
        """Return the distance of 0 from the subdifferential of F at b: the largest over the coordinates."""
        _, gradient = self.smooth(b)
        lam, rest = self.penalty.lam, b[1:]
        off = np.where(rest != 0, np.abs(gradient[1:] + lam * np.sign(rest)), np.abs(gradient[1:]) - lam)
        return float(max(abs(gradient[0]), off.max(initial=0.0)))


@dataclass
class Iterate:
    """b, F(b), and the change that the method compares with its tolerance."""

    b: Array
    value: float
    change: float = math.inf


Steps = Iterator[Iterate]


def proposed(k: int, alpha: float, beta: float) -> tuple[float, float]:
    """(alpha_k, lam_k) of the paper: 1/alpha_k² - 1/alpha_k = 1/alpha_(k-1)², lam_k = beta / alpha_k."""
    alpha = 2 / (1 + math.sqrt(1 + 4 / alpha**2))
    return alpha, beta / alpha


def original(k: int, alpha: float, beta: float) -> tuple[float, float]:
    """(alpha_k, lam_k) of Ghadimi & Lan (2016): 2 / (k + 1) and k beta / 2."""
    return 2 / (k + 1), k * beta / 2


def accelerated(
    rule: Callable[[int, float, float], tuple[float, float]], share: float
) -> Callable[[Objective, Array], Steps]:
    """Return the accelerated gradient method with a rule for alpha and lam, and beta = share / L. Reports b_md."""

    def steps(objective: Objective, start: Array) -> Steps:
        beta, alpha, k = share / objective.lipschitz(), 1.0, 0
        b = b_ag = start
        yield Iterate(start, objective.value(start))
        while True:
            k += 1
            alpha, size = rule(k, alpha, beta)
            b_md = (1 - alpha) * b_ag + alpha * b
            value, gradient = objective.smooth(b_md)
            b = objective.prox(b - size * gradient, size)
            b_ag = objective.prox(b_md - beta * gradient, beta)
            yield Iterate(b_md, value, float(np.abs(b_md - b_ag).max()) / beta)

    return steps


def proximal(objective: Objective, start: Array) -> Steps:
    """Yield the iterates of the proximal gradient method with step 1 / L."""
    step, b, change = 1 / objective.lipschitz(), start, math.inf
    while True:
        value, gradient = objective.smooth(b)
        yield Iterate(b, value, change)
        after = objective.prox(b - step * gradient, step)
        b, change = after, float(np.abs(after - b).max())


def coordinate(objective: Objective, start: Array) -> Steps:
    """Yield sweeps of cyclic coordinate descent. Columns of A after the first have mean square 1 (or are all zero).

    A sweep costs as many products with columns of A as a gradient step. ValueError for a loss that is not squared.
    """
    if not isinstance(objective.loss, Squared):
        raise ValueError("solver='cd': its thresholds are those of model='linear'; write solver='ag'")
    A, penalty = np.asfortranarray(objective.A), objective.penalty
    n, width = A.shape
    squares = (A**2).mean(0)
    b, residual = start.copy(), objective.y - A @ start
    yield Iterate(b.copy(), objective.value(b, objective.y - residual))
    while True:
        before = b.copy()
        for j in range(width):
            if not squares[j]:
                b[j] = 0.0
                continue
            column, old = A[:, j], b[j]
            z = old + float(column @ residual) / n
            new = penalty.threshold(z) if j else z
            if new != old:
                residual -= (new - old) * column
                b[j] = new
        yield Iterate(b.copy(), objective.value(b, objective.y - residual), float(np.abs(b - before).max()))


SOLVERS: dict[str, Callable[[Objective, Array], Steps]] = {
    "ag": accelerated(proposed, 0.99),
    "ag_original": accelerated(original, 0.5),
    "prox": proximal,
    "cd": coordinate,
}


@dataclass
class Descent:
    """Result of a descent. b: (1 + p,). values: the objective of iterates 0, 1, … ."""

    b: Array
    converged: bool
    values: list[float] = field(default_factory=list)

    @property
    def n_iter(self) -> int:
        return len(self.values) - 1

    def first_within(self, target: float) -> int | None:
        """Return the number of the first iterate whose objective is at most ``target``, or None."""
        return next((k for k, value in enumerate(self.values) if value <= target), None)


def descend(solver: str, objective: Objective, start: Array, tol: float, max_iter: int) -> Descent:
    """Iterate from ``start`` until the method's change is below ``tol``, ``max_iter`` times at most."""
    found = Descent(start, False)
    for at in SOLVERS[solver](objective, start):
        found.b = at.b
        found.values.append(at.value)
        found.converged = at.change < tol
        if found.converged or found.n_iter >= max_iter:
            break
    return found
