"""The one place where a fraction becomes a number of things."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import floor


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
