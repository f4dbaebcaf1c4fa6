"""The one place where a fraction becomes a number of things, and where a number that chance decides is judged."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import floor, log, sqrt

FALSE_ALARM = 1e-12
"""How often :func:`chance_miss` calls a sound draw unsound."""


@lru_cache(maxsize=1024)  # some rules ask at every update, and exact arithmetic takes microseconds
def nearest_count(fraction: float, total: int) -> int:
    """``fraction * total`` rounded to the nearest integer, halves up.

    The product is exact: ``fraction`` is taken as the decimal that Python prints for it, so that 0.145 of 100 is 14.5
    (and rounds to 15), where floating point gives 14.499999999999998.
    """
    return floor(Fraction(repr(float(fraction))) * total + Fraction(1, 2))


def keep_count(units: int, density: float) -> int:
    """How many of ``units`` things are kept at ``density`` (the fraction kept, in [0, 1]).

    Rounds to nearest, halves up, and keeps at least one: a layer that is asked for a little never loses everything.
    Only a density of exactly 0, which a global ranking may give to a layer, keeps nothing.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density {density} is not in [0, 1]")
    return 0 if density == 0 else min(units, max(1, nearest_count(density, units)))


def chance_miss(groups: Iterable[tuple[int, int]]) -> float:
    """How far the number of things kept may lie from its mean where each is kept by a draw of its own.

    groups: (number kept on average, number of things) of each group that shares a probability.

    Bernstein's inequality for sums of independent variables in [0, 1], |S - ES| >= t with probability at most
    2 exp(-t^2 / (2 (v + t / 3))), solved for the t of ``FALSE_ALARM``. 0 where nothing is left to chance.
    """
    variance = sum(kept * (1 - kept / total) for kept, total in groups)
    third = log(2 / FALSE_ALARM) / 3
    return third + sqrt(third**2 + 6 * third * variance) if variance else 0.0
