"""A genetic search over the shares of blocks, whose mean stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Shares = tuple[float, ...]
SPREAD = 0.15
"""Standard deviation by which the first generation scatters around its parents; nobody says what the paper's is."""


@dataclass(frozen=True)
class Settings:
    """Settings of a search.

    population, generations: allocations of a generation, and generations after the first. elite: best ones that stay.
    mutation: standard deviation of a child's move.
    """

    population: int
    generations: int
    elite: int
    mutation: float


def project(point: Sequence[float], mean: float, upper: Sequence[float]) -> Shares:
    """Return the nearest point with that mean and 0 <= s_i <= upper_i.

    Args:
        point: (blocks,)
        mean: what the shares are to be on average, at most the mean of ``upper``
        upper: (blocks,) the largest shares

    Returns:
        (blocks,): clip(point + c, 0, upper), with the c for which the mean is right.
    """
    x, top = np.asarray(point, float), np.asarray(upper, float)
    low, high = -float(np.max(x)) - 1.0, float(np.max(top)) - float(np.min(x)) + 1.0
    for _ in range(100):
        c = (low + high) / 2
        if np.clip(x + c, 0, top).mean() < mean:
            low = c
        else:
            high = c
    return tuple(float(share) for share in np.clip(x + (low + high) / 2, 0, top))


def child(
    mother: Shares, father: Shares, mean: float, upper: Sequence[float], sd: float, rng: np.random.Generator
) -> Shares:
    """Each share of one of the parents, moved by a Gaussian, then brought back to the mean.

    Args:
        mother: (blocks,)
        father: (blocks,)
        mean: of the shares
        upper: (blocks,)
        sd: of the Gaussian
        rng: what is drawn comes from it

    Returns:
        (blocks,).
    """
    one = rng.random(len(mother)) < 0.5
    mixed = np.where(one, mother, father) + rng.normal(0, sd, len(mother))
    return project(mixed.tolist(), mean, upper)


def evolve(
    fitness: Callable[[Shares], float], start: Sequence[Shares], mean: float, upper: Sequence[float], settings: Settings,
    rng: np.random.Generator,
) -> tuple[Shares, float]:  # fmt: skip
    """Search for the shares of largest fitness.

    Args:
        fitness: of an allocation (blocks,)
        start: allocations that are in the first generation; the others scatter around them
        mean: of the shares
        upper: (blocks,) the largest shares
        settings: of the search
        rng: what is drawn comes from it

    Returns:
        (the best shares, their fitness), never worse than the best of ``start``.
    """
    known: dict[Shares, float] = {}

    def rank(some: list[Shares]) -> list[Shares]:
        for shares in some:
            if shares not in known:
                known[shares] = fitness(shares)
        return sorted(some, key=lambda shares: -known[shares])

    first = [project(shares, mean, upper) for shares in start][: settings.population]
    given = len(first)
    while len(first) < settings.population:
        around = np.asarray(first[len(first) % given])
        first.append(project((around + rng.normal(0, SPREAD, len(around))).tolist(), mean, upper))
    people = rank(first)
    for _ in range(settings.generations):
        parents = people[: max(settings.population // 2, 2)]
        children = []
        for _ in range(settings.population - settings.elite):
            mother, father = (parents[int(rng.integers(len(parents)))] for _ in range(2))
            children.append(child(mother, father, mean, upper, settings.mutation, rng))
        people = rank(people[: settings.elite] + children)
    return people[0], known[people[0]]
