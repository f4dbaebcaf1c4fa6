"""The penalty method for two levels (Kwon et al. 2024, arXiv 2309.01753): psi_sigma, the double loop and the single loop.

psi_sigma(x) = min over y of f(x, y) + (g(x, y) - min over z of g(x, z)) / sigma, whose gradient is that of f in x plus
(gradient of g in x at y, minus that at z) / sigma. Only first derivatives are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from sparselab.estimation.problems.levels.descent import minimise, step_of
from sparselab.estimation.problems.levels.environment import Answer, Environment, Sample
from sparselab.estimation.problems.levels.instance import Array


@dataclass(frozen=True)
class Settings:
    """Settings of the loops; a value and its power p stand for value * sigma^p.

    sigma, sigma_power: the k-th step (from 0) has sigma * (k + 1)^-sigma_power.
    lr_x, lr_x_power:   the step of x. lr_y, lr_z: those of y and z, times 1 / (curvature + 1 / rho).
    inner_steps:        T, of y and z for each step of x. steps: most steps of x.
    rho, beta:          the proximal term |u - y|² / 2 rho and how far y follows u; infinity and 1: plain gradient steps.
    batch, batch_power: samples averaged in a gradient, rounded up; None: exact gradients.
    eta, eta_power:     momentum's forgetting, in (0, 1] (single loop); 1: plain stochastic gradients.
    shared:             y and z see the same samples.
    """

    sigma: float
    steps: int
    lr_x: float
    lr_y: float = 0.5
    lr_z: float = 0.5
    sigma_power: float = 0.0
    lr_x_power: float = 1.0
    inner_steps: int = 10
    rho: float = inf
    beta: float = 1.0
    batch: float | None = 1.0
    batch_power: float = 0.0
    eta: float = 1.0
    eta_power: float = 0.0
    shared: bool = True

    def sigma_at(self, k: int) -> float:
        return self.sigma * (k + 1) ** -self.sigma_power

    def step_at(self, sigma: float) -> float:
        return self.lr_x * sigma**self.lr_x_power

    def batch_at(self, sigma: float) -> int | None:
        return None if self.batch is None else ceil(self.batch * sigma**-self.batch_power)

    def eta_at(self, sigma: float) -> float:
        return min(1.0, self.eta * sigma**self.eta_power)


class Gradients:
    """The three directions of the penalty method at a point."""

    def __init__(self, environment: Environment, settings: Settings):
        self.environment, self.settings = environment, settings

    def of_y(self, x: Array, u: Array, y: Array, sigma: float, sample: Sample) -> Array:
        """Gradient of sigma f + g + |u - y|² / 2 rho, in u: two oracle calls."""
        e = self.environment
        found = sigma * e.upper_y(x, u, sample) + e.lower_y(x, u, sample)
        return found if self.settings.rho == inf else found + (u - y) / self.settings.rho

    def of_z(self, x: Array, w: Array, z: Array, sample: Sample) -> Array:
        """Gradient of g + |w - z|² / 2 rho, in w: one oracle call."""
        found = self.environment.lower_y(x, w, sample)
        return found if self.settings.rho == inf else found + (w - z) / self.settings.rho

    def of_x(self, x: Array, u: Array, w: Array, sigma: float, sample: Sample) -> Array:
        """Gradient of psi_sigma at minimisers u and w: three oracle calls of one sample; its error is not divided by sigma."""
        e = self.environment
        upper = e.upper_x(x, u, sample)
        return upper + (e.lower_x(x, u, sample) - e.lower_x(x, w, sample)) / sigma

    def steps(self, x: Array, sigma: float) -> tuple[float | Array, float | Array]:
        """Steps of y and of z: the shares lr_y and lr_z of 1 / (curvature + 1 / rho). Both are measured by sigma f + g."""
        s = self.settings
        whole = 1 / (1 / step_of(self.environment.instance, x, sigma, 1.0) + 1 / s.rho)
        return s.lr_y * whole, s.lr_z * whole


def double_loop(environment: Environment, s: Settings) -> Answer:
    """T steps of y and z for each step of x, every gradient the mean of a batch (algorithm A of the dossier)."""
    instance, ask = environment.instance, Gradients(environment, s)
    x, y, z = instance.x0, instance.y0, instance.y0
    k, sigma = 0, s.sigma
    for k in range(s.steps):
        sigma = s.sigma_at(k)
        batch = s.batch_at(sigma)
        of_y, of_z = ask.steps(x, sigma)
        u, w = y, z
        for _ in range(s.inner_steps):
            sample = environment.sample(batch)
            other = sample if s.shared else environment.sample(batch)
            u = instance.project_y(u - of_y * ask.of_y(x, u, y, sigma, sample))
            w = instance.project_y(w - of_z * ask.of_z(x, w, z, other))
        y, z = y + s.beta * (u - y), z + s.beta * (w - z)
        x = instance.project_x(x - s.step_at(sigma) * ask.of_x(x, u, w, sigma, environment.sample(batch)))
        if environment.over(x):
            break
    return Answer(x, y, z, sigma, k + 1)


def single_loop(environment: Environment, s: Settings) -> Answer:
    """One step of y, z and x in turns, with recursive momentum (algorithm B of the dossier).

    Each direction is v = g(now; xi) + (1 - eta) (v before - g(before; xi)) with one sample xi at both points. The first
    gradients are means of 1 / eta samples, so that their error is no larger than what momentum leaves.
    """
    instance, ask = environment.instance, Gradients(environment, s)
    x, y, z = instance.x0, instance.y0, instance.y0
    before: tuple[Array, Array, Array, float] | None = None  # the point of the last directions of y and z
    turned: tuple[Array, Array, Array, float] | None = None  # and of x
    v_y = v_z = v_x = np.zeros(0)
    k, sigma = 0, s.sigma
    for k in range(s.steps):
        sigma = s.sigma_at(k)
        batch, eta = s.batch_at(sigma), s.eta_at(sigma)
        of_y, of_z = ask.steps(x, sigma)
        if before is None and batch is not None:
            batch = ceil(batch / eta)
        sample = environment.sample(batch)
        other = sample if s.shared else environment.sample(batch)
        new_y, new_z = ask.of_y(x, y, y, sigma, sample), ask.of_z(x, z, z, other)
        if before is not None and eta < 1:
            old_x, old_y, old_z, old = before
            new_y = new_y + (1 - eta) * (v_y - ask.of_y(old_x, old_y, old_y, old, sample))
            new_z = new_z + (1 - eta) * (v_z - ask.of_z(old_x, old_z, old_z, other))
        before, v_y, v_z = (x, y, z, sigma), new_y, new_z
        u, w = instance.project_y(y - of_y * v_y), instance.project_y(z - of_z * v_z)
        y, z = y + s.beta * (u - y), z + s.beta * (w - z)
        sample = environment.sample(batch)
        new_x = ask.of_x(x, u, w, sigma, sample)
        if turned is not None and eta < 1:
            old_x, old_u, old_w, old = turned
            new_x = new_x + (1 - eta) * (v_x - ask.of_x(old_x, old_u, old_w, old, sample))
        turned, v_x = (x, u, w, sigma), new_x
        x = instance.project_x(x - s.step_at(sigma) * v_x)
        if environment.over(x):
            break
    return Answer(x, y, z, sigma, k + 1)


VARIANTS = {"double": double_loop, "single": single_loop}


def penalty_function(
    environment: Environment, x: Array, sigma: float, steps: int, tol: float
) -> tuple[float, Array, Array, Array]:
    """(psi_sigma(x), its gradient, y, z), both lower levels minimised to ``tol`` by exact gradients from y0."""
    instance, all_of_it = environment.instance, environment.sample(None)
    ask = Gradients(environment, Settings(sigma, 1, 1.0))
    y = minimise(
        lambda u: ask.of_y(x, u, u, sigma, all_of_it),
        instance.project_y, instance.y0, step_of(instance, x, sigma, 1.0), steps, tol,
    )  # fmt: skip
    z = minimise(
        lambda w: ask.of_z(x, w, w, all_of_it),
        instance.project_y, instance.y0, step_of(instance, x, sigma, 1.0), steps, tol,
    )  # fmt: skip
    value = instance.upper(x, y) + (instance.lower(x, y) - instance.lower(x, z)) / sigma
    return value, ask.of_x(x, y, z, sigma, all_of_it), y, z
