"""Searches for inputs with a high prediction: gradient ascent and REINFORCE. Each is a set of options with one method."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator

from sparselab.estimation.estimators.checks import number, one_of, whole
from sparselab.estimation.estimators.surrogates.conservative import climbed
from sparselab.estimation.estimators.surrogates.network import Adam
from sparselab.estimation.estimators.surrogates.surface import Surface

Array = np.ndarray
PATTERNS = 64  # most values of a block of columns, above which it is no category


class Search(Protocol):
    """A way from the best rows seen to designs."""

    def check(self, columns: int) -> None:
        """ValueError for an option that makes no sense, by itself or with so many columns."""
        ...

    def run(self, surface: Surface, start: Array, rows: Array, rng: np.random.Generator) -> Array:
        """(designs, columns), as many as ``start`` has. start: the best rows. rows: all of them; all standardised."""
        ...


class GradientAscent(BaseEstimator):
    """Every start climbs the surrogate for ``steps`` steps: x <- x + rate sqrt(columns) grad g(x).

    aggregate: of an ensemble, ``mean`` or ``min`` (the least of the members' predictions, for each design at each step).
    """

    def __init__(self, steps: int = 200, rate: float = 0.01, aggregate: str = "mean"):
        self.steps = steps
        self.rate = rate
        self.aggregate = aggregate

    def check(self, columns: int) -> None:
        """ValueError for an option that makes no sense."""
        whole(self, "steps")
        number(self, "rate", 0.0)
        one_of(self, "aggregate", ("mean", "min"))

    def run(self, surface: Surface, start: Array, rows: Array, rng: np.random.Generator) -> Array:
        """The starts, climbed."""
        return climbed(surface, start, self.rate * np.sqrt(start.shape[1]), self.steps, self.aggregate)


class Reinforce(BaseEstimator):
    """A distribution that is moved by the policy gradient of the standardised prediction; designs are drawn from it.

    block: so many neighbouring columns are one letter (the encoded positions of a sequence): its values are those that the
    rows have, and each position has a categorical distribution, which starts as the starts' letters are distributed.
    ``None``: a normal distribution with the starts' mean and the standard deviation ``spread`` in each column, of which only
    the mean moves. rounds, samples: policy gradients, and designs drawn for each. rate: of Adam.
    """

    def __init__(
        self,
        rounds: int = 200,
        samples: int = 256,
        rate: float = 0.01,
        spread: float = 0.1,
        block: int | None = None,
    ):
        self.rounds = rounds
        self.samples = samples
        self.rate = rate
        self.spread = spread
        self.block = block

    def check(self, columns: int) -> None:
        """ValueError for an option that makes no sense, by itself or with so many columns."""
        whole(self, "rounds")
        whole(self, "samples", 2)
        for name in ("rate", "spread"):
            number(self, name, 0.0)
        if self.block is not None and columns % whole(self, "block"):
            raise ValueError(f"block={self.block}: {columns} columns are no whole number of blocks")

    def run(self, surface: Surface, start: Array, rows: Array, rng: np.random.Generator) -> Array:
        """As many draws of the last distribution as there are starts."""
        policy: Any = Normal(start, self.spread) if self.block is None else Letters(start, rows, self.block)
        adam = Adam(policy.place.size, self.rate, np.float64)
        for _ in range(self.rounds):
            drawn, slopes = policy.draw(self.samples, rng)
            values = surface.mean(drawn).astype(np.float64)
            spread = values.std()
            if spread > 0:
                adam.step(policy.place, -((values - values.mean()) / spread) @ slopes() / self.samples)
        return np.asarray(policy.draw(len(start), rng)[0])


class Normal:
    """Independent normal columns around ``place``."""

    def __init__(self, start: Array, spread: float):
        self.place, self.spread = start.mean(0).astype(np.float64), spread

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """(count draws, a function that gives the slopes of their log-probabilities in ``place``, (count, columns))."""
        drawn = self.place + self.spread * rng.standard_normal((count, len(self.place)))
        return drawn, lambda: (drawn - self.place) / self.spread**2


class Letters:
    """Independent categorical positions; ``place`` has their logits, minus infinity for letters that no start has."""

    def __init__(self, start: Array, rows: Array, block: int):
        self.values: list[Array] = []
        logits = []
        for first in range(0, start.shape[1], block):
            columns = slice(first, first + block)
            values = np.unique(rows[:, columns], axis=0)
            if len(values) > PATTERNS:
                raise ValueError(
                    f"block={block}: columns {first} to {first + block - 1} have {len(values)} values, which are no"
                    " letters; write block=None"
                )
            shares = (start[:, None, columns] == values).all(-1).mean(0)
            with np.errstate(divide="ignore"):
                logits.append(np.log(shares))
            self.values.append(values)
        self.ends = np.cumsum([len(values) for values in self.values])[:-1]
        self.place = np.concatenate(logits)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """As :meth:`Normal.draw`."""
        drawn, slopes = [], []
        for values, logits in zip(self.values, np.split(self.place, self.ends), strict=True):
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            letters = np.searchsorted(np.cumsum(chances), rng.random(count), side="right").clip(max=len(chances) - 1)
            drawn.append(values[letters])
            slopes.append(np.eye(len(chances))[letters] - chances)
        return np.concatenate(drawn, axis=1), lambda: np.concatenate(slopes, axis=1)
