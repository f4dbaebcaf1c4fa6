"""A ledger of the privacy spent on each user: releases compose within a user, and across users they do not add up."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One message of each user of a group.

    group: who sends it (users are in one group each). what: in words. mechanism: ``gaussian``, ``analytic``, ``joint`` or
    ``duchi``. epsilon, delta: what it spends. sensitivity: the largest change (l2) between two users. noise: the standard
    deviation of each entry's noise, or the radius of the sphere.
    """

    group: Hashable
    what: str
    mechanism: str
    epsilon: float
    delta: float
    sensitivity: float
    noise: float


@dataclass(frozen=True)
class Spent:
    """The guarantee of a fit: (epsilon, delta) for every user, and the releases that add up to it.

    voided: reasons why there is no guarantee, whatever noise was added; epsilon is then infinite and delta is 1.
    """

    epsilon: float
    delta: float
    releases: tuple[Release, ...]
    voided: tuple[str, ...] = ()

    @property
    def private(self) -> bool:
        """True where the guarantee holds."""
        return not self.voided


def total(releases: Sequence[Release], voided: Sequence[str] = ()) -> Spent:
    """The guarantee of ``releases``: sums within a group (basic composition), the largest over groups (disjoint users)."""
    if voided:
        return Spent(math.inf, 1.0, tuple(releases), tuple(voided))
    sums: dict[Hashable, tuple[float, float]] = {}
    for one in releases:
        epsilon, delta = sums.get(one.group, (0.0, 0.0))
        sums[one.group] = (epsilon + one.epsilon, delta + one.delta)
    return Spent(max(e for e, _ in sums.values()), max(d for _, d in sums.values()), tuple(releases))
