"""One level alone, x where it begins: what can be had without learning x."""

from __future__ import annotations

from sparselab.problems.levels.descent import minimise, step_of
from sparselab.problems.levels.environment import Answer, Environment


def one_level(environment: Environment, upper: bool, steps: int, tol: float) -> Answer:
    """Minimise f (``upper``) or g in y by exact accelerated gradients."""
    instance, sample = environment.instance, environment.sample(None)
    x = instance.x0
    ask = environment.upper_y if upper else environment.lower_y
    step = 1 / instance.upper_curvature if upper else step_of(instance, x, 0.0, 1.0)
    y = minimise(lambda u: ask(x, u, sample), instance.project_y, instance.y0, step, steps, tol)
    environment.over(x)
    return Answer(x, y, y, None, 0)
