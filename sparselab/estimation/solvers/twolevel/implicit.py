"""Implicit differentiation: the hypergradient from a linear system with the lower level's Hessian, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sparselab.estimation.problems.levels.descent import step_of
from sparselab.estimation.problems.levels.environment import Answer, Environment
from sparselab.estimation.problems.levels.instance import Array


@dataclass(frozen=True)
class Settings:
    """lr_x: the step of x; lr_y: of the lower level, times 1 / curvature, ``inner_steps`` of them; ``cg_steps`` at most."""

    steps: int
    lr_x: float
    lr_y: float
    inner_steps: int
    cg_steps: int
    batch: int | None = None


def conjugate_gradients(
    times: Callable[[Array], Array], right: Array, start: Array, steps: int, tol: float = 1e-10
) -> Array:
    """Solve ``times(v) = right`` for a positive definite map, until the residual is ``tol`` of the right side."""
    v = start
    residual = right - times(v)
    direction, size = residual, float(residual @ residual)
    for _ in range(steps):
        if size <= tol**2 * float(right @ right):
            break
        pushed = times(direction)
        length = size / float(direction @ pushed)
        v, residual = v + length * direction, residual - length * pushed
        size, last = float(residual @ residual), size
        direction = residual + size / last * direction
    return v


def implicit(environment: Environment, s: Settings) -> Answer:
    """Gradient descent on x with v from Hessian v = gradient of f in y; y and v begin where they ended before."""
    e, instance = environment, environment.instance
    x, y, v = instance.x0, instance.y0, np.zeros_like(instance.y0)
    taken = 0
    for _ in range(s.steps):
        taken += 1
        step = step_of(instance, x, 0.0, s.lr_y)
        for _ in range(s.inner_steps):
            y = instance.project_y(y - step * e.lower_y(x, y, e.sample(s.batch)))
        sample = e.sample(s.batch)
        v = conjugate_gradients(partial(e.lower_yy, x, y), e.upper_y(x, y, sample), v, s.cg_steps)
        x = instance.project_x(x - s.lr_x * (e.upper_x(x, y, sample) - e.lower_xy(x, y, v)))
        if e.over(x):
            break
    return Answer(x, y, y, None, taken)
