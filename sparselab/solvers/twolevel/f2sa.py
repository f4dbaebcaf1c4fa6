"""F2SA (Kwon et al. 2023, ICML): f + lambda (g(x, y) - g(x, z)) with a growing lambda and decaying steps."""

from __future__ import annotations

from dataclasses import dataclass

from sparselab.problems.levels.environment import Answer, Environment


@dataclass(frozen=True)
class Settings:
    """Steps and multiplier of the k-th (from 0) of ``steps`` steps of x.

    lr_y, lr_z, lr_x: value * (k + 1)^-power. lambda0, growth: lambda rises by growth * (k + 1)^-growth_power after each
    step: as k^(1/7) with the power 6/7, which is the ratio of the steps of z and y.
    """

    steps: int
    lr_x: float
    lr_y: float
    lr_z: float
    lambda0: float = 1.0
    growth: float = 0.1
    power_x: float = 4 / 7
    power_y: float = 5 / 7
    power_z: float = 4 / 7
    growth_power: float = 6 / 7
    inner_steps: int = 10
    batch: int | None = 1


def f2sa(environment: Environment, s: Settings) -> Answer:
    """Inner steps of z on g and of y on f + lambda g, then a step of x; y and z see the same samples."""
    e, instance = environment, environment.instance
    x, y, z, multiplier = instance.x0, instance.y0, instance.y0, s.lambda0
    k, used = 0, multiplier
    for k in range(s.steps):
        used = multiplier
        for _ in range(s.inner_steps):
            sample = e.sample(s.batch)
            pull = e.upper_y(x, y, sample) + used * e.lower_y(x, y, sample)
            z = instance.project_y(z - s.lr_z * (k + 1) ** -s.power_z * e.lower_y(x, z, sample))
            y = instance.project_y(y - s.lr_y * (k + 1) ** -s.power_y * pull)
        sample = e.sample(s.batch)
        direction = e.upper_x(x, y, sample) + used * (e.lower_x(x, y, sample) - e.lower_x(x, z, sample))
        x = instance.project_x(x - s.lr_x * (k + 1) ** -s.power_x * direction)
        multiplier += s.growth * (k + 1) ** -s.growth_power
        if e.over(x):
            break
    return Answer(x, y, z, 1 / used, k + 1)
