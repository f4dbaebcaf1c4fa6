"""A grid over all s-sparse parameters: every one has a neighbour in it that predicts each unit feature within eps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb, sqrt

SUPPORTS = 512  # supports whose candidates are valued at a time


def spacing(s: int, eps: float) -> float:
    """2 eps / sqrt(s): rounding s coordinates moves theta by at most sqrt(s) * spacing / 2 = eps."""
    return 2 * eps / sqrt(s)


def radius(eps: float, eta: float) -> float:
    """The squared norm, in units of eta, up to which the grid goes: (1 + eps)^2, so that the sphere is covered too."""
    return ((1 + eps) / eta) ** 2 * (1 + 1e-12)


def net_size(d: int, s: int, eps: float, eta: float) -> int:
    """Distinct candidates: sum over j of C(d, j) times the grid points with j non-zero coordinates. No numpy."""
    most = int(radius(eps, eta))
    points = [1] + [0] * most  # grid points with a given squared norm, all of j coordinates non-zero
    total = 0
    for j in range(s + 1):
        total += comb(d, j) * sum(points)
        grown = [0] * (most + 1)
        for step in range(1, int(sqrt(most)) + 1):
            for norm in range(most + 1 - step * step):
                grown[norm + step * step] += 2 * points[norm]
        points = grown
    return total


def grid(j: int, eps: float, eta: float) -> list[tuple[float, ...]]:
    """Points of j non-zero coordinates, in order."""
    most = radius(eps, eta)

    def extend(prefix: tuple[int, ...], left: float) -> Iterator[tuple[int, ...]]:
        if len(prefix) == j:
            yield prefix
            return
        top = int(sqrt(max(left, 0.0)))
        for step in [*range(-top, 0), *range(1, top + 1)]:
            yield from extend((*prefix, step), left - step * step)

    return [tuple(eta * step for step in point) for point in extend((), most)]


def supports(d: int, j: int) -> list[tuple[int, ...]]:
    """All sets of j of d coordinates, in order."""
    return list(combinations(range(d), j))
