"""CMA-ES (Hansen 2016, arXiv 1604.00772, with negative weights), many runs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sparselab.estimation.estimators.checks import number, whole
from sparselab.estimation.estimators.surrogates.surface import Surface

Array = np.ndarray
LEAST = 1e-20  # of an eigenvalue over the largest


class Constants:
    """Table 1 of the tutorial for ``n`` dimensions: population, recombination weights and rates."""

    def __init__(self, n: int):
        self.population = 4 + int(3 * np.log(n))
        raw = np.log((self.population + 1) / 2) - np.log(np.arange(1, self.population + 1))
        self.parents = self.population // 2
        better, worse = raw[: self.parents], raw[self.parents :]
        self.mass = better.sum() ** 2 / (better**2).sum()
        worse_mass = worse.sum() ** 2 / (worse**2).sum()
        self.c_c = (4 + self.mass / n) / (n + 4 + 2 * self.mass / n)
        self.c_1 = 2 / ((n + 1.3) ** 2 + self.mass)
        self.c_mu = min(1 - self.c_1, 2 * (0.25 + self.mass + 1 / self.mass - 2) / ((n + 2) ** 2 + self.mass))
        least = min(
            1 + self.c_1 / self.c_mu, 1 + 2 * worse_mass / (self.mass + 2), (1 - self.c_1 - self.c_mu) / n / self.c_mu
        )
        self.weights = np.where(raw >= 0, raw / raw[raw > 0].sum(), least * raw / -raw[raw < 0].sum())
        self.c_sigma = (self.mass + 2) / (n + self.mass + 5)
        self.damping = 1 + 2 * max(0.0, np.sqrt((self.mass - 1) / (n + 1)) - 1) + self.c_sigma
        self.length = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))  # E |N(0, I)|


class Strategies:
    """Runs of CMA-ES from the rows of ``start`` (runs, n), each with the step size ``sigma``; they minimise.

    :meth:`ask` gives (runs, population, n) candidates, :meth:`tell` takes them back with their values (runs, population).
    """

    def __init__(self, start: Array, sigma: float):
        self.mean = start.astype(np.float64)
        runs, n = self.mean.shape
        self.constants, self.generation = Constants(n), 0
        self.sigma = np.full(runs, float(sigma))
        self.covariance = np.tile(np.eye(n), (runs, 1, 1))
        self.path_sigma, self.path_c = np.zeros((runs, n)), np.zeros((runs, n))
        self.best, self.least = self.mean.copy(), np.full(runs, np.inf)
        self._decompose()

    def ask(self, rng: np.random.Generator) -> Array:
        """Candidates around each run's mean."""
        runs, n = self.mean.shape
        z = rng.standard_normal((runs, self.constants.population, n))
        return self.mean[:, None] + self.sigma[:, None, None] * (z * self.scales[:, None]) @ self.basis.swapaxes(1, 2)

    def tell(self, candidates: Array, values: Array) -> None:
        """Update means, step sizes and covariances (equations 39 to 47 of the tutorial) and the best candidates so far."""
        c, n = self.constants, self.mean.shape[1]
        order = np.argsort(values, axis=1, kind="stable")
        ranked = np.take_along_axis(candidates, order[:, :, None], 1)
        lowest = np.take_along_axis(values, order[:, :1], 1)[:, 0]
        better = lowest < self.least
        self.best[better], self.least[better] = ranked[better, 0], lowest[better]

        y = (ranked - self.mean[:, None]) / self.sigma[:, None, None]
        step = np.einsum("i,rin->rn", c.weights[: c.parents], y[:, : c.parents])
        self.mean = self.mean + self.sigma[:, None] * step
        self.generation += 1

        self.path_sigma *= 1 - c.c_sigma
        self.path_sigma += np.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mass) * self._whitened(step[:, None])[:, 0]
        length = np.linalg.norm(self.path_sigma, axis=1)
        bar = np.sqrt(1 - (1 - c.c_sigma) ** (2 * self.generation)) * (1.4 + 2 / (n + 1)) * c.length
        moving = (length < bar).astype(np.float64)
        self.path_c *= 1 - c.c_c
        self.path_c += (moving * np.sqrt(c.c_c * (2 - c.c_c) * c.mass))[:, None] * step

        weights = np.tile(c.weights, (len(y), 1))
        far = (self._whitened(y) ** 2).sum(-1)
        weights = np.where(weights < 0, weights * n / np.maximum(far, 1e-300), weights)
        stalled = (1 - moving) * c.c_c * (2 - c.c_c)
        kept = 1 + c.c_1 * stalled - c.c_1 - c.c_mu * c.weights.sum()
        self.covariance = (
            kept[:, None, None] * self.covariance
            + c.c_1 * self.path_c[:, :, None] * self.path_c[:, None]
            + c.c_mu * np.einsum("ri,rin,rim->rnm", weights, y, y, optimize=True)
        )
        self.sigma = self.sigma * np.exp(c.c_sigma / c.damping * (length / c.length - 1))
        self._decompose()

    def _decompose(self) -> None:
        self.covariance = (self.covariance + self.covariance.swapaxes(1, 2)) / 2
        squares, self.basis = np.linalg.eigh(self.covariance)
        self.scales = np.sqrt(np.maximum(squares, LEAST * squares[:, -1:]))

    def _whitened(self, y: Array) -> Array:
        """C^(-1/2) of each row of (runs, k, n)."""
        turned = (y @ self.basis) / self.scales[:, None]
        return np.asarray(turned @ self.basis.swapaxes(1, 2))


class Evolution(BaseEstimator):
    """A run of CMA-ES from every start: ``rounds`` generations, first step ``sigma``; a design is its best candidate."""

    def __init__(self, rounds: int = 100, sigma: float = 0.5):
        self.rounds = rounds
        self.sigma = sigma

    def check(self, columns: int) -> None:
        """ValueError for an option that makes no sense."""
        whole(self, "rounds")
        number(self, "sigma", 0.0)
        if columns < 2:
            raise ValueError(f"X has {columns} column, and a covariance asks for 2: use another search")

    def run(self, surface: Surface, start: Array, rows: Array, rng: np.random.Generator) -> Array:
        """The best candidate of each start's run."""
        runs: Any = Strategies(start, self.sigma)
        for _ in range(self.rounds):
            candidates = runs.ask(rng)
            values = -surface.mean(candidates.reshape(-1, start.shape[1]))
            runs.tell(candidates, values.reshape(candidates.shape[:2]).astype(np.float64))
        return np.asarray(runs.best)
