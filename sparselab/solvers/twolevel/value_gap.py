"""V-PBGD (Shen & Chen 2023, arXiv 2302.05185): one joint gradient step of x and y on f + gamma (g(x, y) - g(x, z))."""

from __future__ import annotations

from dataclasses import dataclass

from sparselab.problems.levels.environment import Answer, Environment


@dataclass(frozen=True)
class Settings:
    """gamma rises from ``gamma0`` to ``gamma_max`` in equal steps over ``ramp`` of the ``steps`` steps, and stays.

    Each step of x and y is divided by gamma where that is above 1. z takes ``inner_steps`` steps of lr_z before each.
    """

    steps: int
    lr_x: float
    lr_y: float
    lr_z: float
    gamma0: float
    gamma_max: float
    ramp: int
    inner_steps: int = 1
    batch: int | None = 1


def value_gap(environment: Environment, s: Settings) -> Answer:
    """Follow the penalty with x and y together; z approaches the lower level's minimiser on the side."""
    e, instance = environment, environment.instance
    x, y, z = instance.x0, instance.y0, instance.y0
    k, gamma = 0, s.gamma0
    for k in range(s.steps):
        gamma = min(s.gamma_max, s.gamma0 + (s.gamma_max - s.gamma0) * k / s.ramp)
        for _ in range(s.inner_steps):
            z = instance.project_y(z - s.lr_z * e.lower_y(x, z, e.sample(s.batch)))
        sample, shrink = e.sample(s.batch), 1 / max(gamma, 1.0)
        of_x = e.upper_x(x, y, sample) + gamma * (e.lower_x(x, y, sample) - e.lower_x(x, z, sample))
        of_y = e.upper_y(x, y, sample) + gamma * e.lower_y(x, y, sample)
        x = instance.project_x(x - s.lr_x * shrink * of_x)
        y = instance.project_y(y - s.lr_y * shrink * of_y)
        if e.over(x):
            break
    return Answer(x, y, z, 1 / gamma if gamma > 0 else None, k + 1)
