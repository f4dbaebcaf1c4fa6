"""Proximal gradient and proximal nonlinear conjugate gradient, both with a line search. The latter is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SHRINK, GROW, DECREASE, SMALLEST = 0.5, 2.0, 1e-4, 1e-14


@dataclass(frozen=True)
class Composite:
    """F = smooth + rest: ``smooth(theta)`` gives value and gradient, ``rest(theta)`` a value, ``prox(theta, step)`` a point."""

    smooth: Callable[[Array], tuple[float, Array]]
    rest: Callable[[Array], float]
    prox: Callable[[Array, float], Array]


@dataclass
class Minimum:
    """Result of a descent. evaluations: of the smooth part with its gradient. values: F after each step."""

    theta: Array
    converged: bool
    evaluations: int
    values: list[float]


def descend(problem: Composite, start: Array, tol: float, max_iter: int, conjugate: bool) -> Minimum:
    """Minimise from ``start`` until the prox-gradient residual's largest entry is below ``tol``.

    A step is theta+ = prox(theta + t d), d = -gradient, and with ``conjugate`` d = -gradient + max(0, PR) (last move) / t_last,
    PR the formula of Polak & Ribière on the residuals g = (theta - prox(theta - t gradient)) / t. t doubles after each step
    and is halved until F falls by enough; where the conjugate direction does not descend, that step is without it.
    """
    theta, t = start, 1.0
    value, gradient = problem.smooth(theta)
    total = value + problem.rest(theta)
    found = Minimum(theta, False, 1, [total])
    last, moved = None, np.zeros_like(theta)
    while len(found.values) <= max_iter:
        residual = (theta - problem.prox(theta - t * gradient, t)) / t
        if np.abs(residual).max() < tol:
            found.converged = True
            break
        push = np.zeros_like(theta)
        if conjugate and last is not None:
            push = max(0.0, float(residual @ (residual - last) / (last @ last))) * moved
            if push @ residual >= residual @ residual:  # d = -residual + push does not descend
                push = np.zeros_like(theta)
        last = residual
        while True:
            after = problem.prox(theta + t * (push - gradient), t)
            step = after - theta
            ahead, slope = problem.smooth(after)
            found.evaluations += 1
            new = ahead + problem.rest(after)
            if np.isfinite(new) and new <= total - DECREASE / t * float(step @ step):
                break
            if push.any():
                push = np.zeros_like(theta)
                continue
            t *= SHRINK
            if t < SMALLEST:
                return found
        theta, gradient, total, moved = after, slope, new, step / t
        found.theta = theta
        found.values.append(total)
        t *= GROW
    return found
