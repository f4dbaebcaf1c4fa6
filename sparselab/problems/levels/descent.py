"""One level at a time: steps that depend on curvature, and minimisation to high accuracy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparselab.problems.levels.instance import Array, Instance

LEAST = 1e-12  # of a curvature: a linear level has none, and any step will do


def step_of(instance: Instance, x: Array, sigma: float, share: float) -> float | Array:
    """``share`` over the curvature of sigma f + g at x: at most 1 is a safe step of gradient descent in y."""
    return share / np.maximum(instance.lower_curvature(x) + sigma * instance.upper_curvature, LEAST)


def minimise(
    gradient: Callable[[Array], Array], project: Callable[[Array], Array], start: Array, step: float | Array,
    steps: int, tol: float,
) -> Array:  # fmt: skip
    """Accelerated projected gradient descent, begun again where it would go up (O'Donoghue & Candès 2015).

    Ends after ``steps``, or when a step is shorter than ``tol`` times the step size.
    """
    y = ahead = start
    t = 1.0
    for _ in range(steps):
        after = project(ahead - step * gradient(ahead))
        moved = after - y
        if float(((ahead - after) / step) @ moved) > 0:  # the last extrapolation went too far
            t, after = 1.0, project(y - step * gradient(y))
            moved = after - y
        if np.abs(moved / step).max() <= tol and np.abs((ahead - after) / step).max() <= tol:
            return after
        faster = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead = after + (t - 1) / faster * moved
        y, t = after, faster
    return y
