"""The statistics of a verdict: t tests of contrasts that every seed gives by itself, the seeds a test needs, and Holm.

Cells of one seed share initial weights, the order of the data and often the very network, and cells of a table scatter
unequally. A contrast is therefore worked out seed by seed, and only its own spread between seeds counts: what a seed's
cells have in common drops out, and no cell lends its spread to another. ``docs/verdicts.md`` has size and power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Place = tuple[str, str]
Contrast = Mapping[Place, float]
"""Weights of cells, by (row, column): the quantity sum(weight * value of the cell)."""
Samples = Mapping[Place, Mapping[int, float]]
"""For each (row, column) the value of every finished seed."""
MOST_SEEDS = 1000
"""More seeds than this are not counted out."""


@dataclass(frozen=True)
class Estimate:
    """A contrast's mean over seeds, the standard deviation of one seed, and the number of seeds."""

    value: float
    sd: float
    seeds: int

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN of a single seed."""
        return self.sd / math.sqrt(self.seeds)

    def p_above(self, threshold: float) -> float:
        """P of a mean at least this high if the truth were ``threshold``: small says that the truth is above."""
        return self._tail(self.value - threshold)

    def p_below(self, threshold: float) -> float:
        """The same for means at least this low."""
        return self._tail(threshold - self.value)

    def _tail(self, distance: float) -> float:
        if self.seeds < 2 or not self.sd > 0:  # nothing is known of the spread
            return 1.0
        from scipy.special import stdtr

        return float(stdtr(self.seeds - 1, -distance / self.error))

    def effect(self, threshold: float) -> float:
        """The distance to ``threshold`` in standard deviations of one seed; NaN where there is no spread to go by."""
        return (self.value - threshold) / self.sd if self.seeds > 1 and self.sd > 0 else math.nan


def shared_seeds(places: Iterable[Place], samples: Samples) -> list[int]:
    """The seeds that have a value in every one of ``places``, in order."""
    found = [set(samples.get(place, ())) for place in places]
    return sorted(set.intersection(*found)) if found else []


def estimate(contrast: Contrast, samples: Samples, seeds: Sequence[int], resolution: float = 0.0) -> Estimate:
    """``contrast`` over ``seeds``, of which every cell has a value.

    The standard deviation is at least what rounding each value to ``resolution`` would leave: a rounding error is uniform
    over one step, so its variance is resolution**2 / 12, weighted as the cells are.
    """
    each = [math.fsum(weight * samples[at][seed] for at, weight in contrast.items()) for seed in seeds]
    mean = math.fsum(each) / len(each)
    if len(each) < 2:
        return Estimate(mean, math.nan, len(each))
    floor = resolution / math.sqrt(12) * math.sqrt(math.fsum(weight**2 for weight in contrast.values()))
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in each) / (len(each) - 1))
    return Estimate(mean, max(sd, floor), len(each))


def resolution(samples: Samples, digits: int) -> float:
    """The step of a metric: the smallest difference between two of its values, or else the last of ``digits`` digits.

    Values that are counts over n lie on a grid of step 1 / n, which two of a table's values are rarely far from; values
    that are not have differences next to nothing. Differences that are rounding errors of float64 are none.
    """
    values = sorted({value for by_seed in samples.values() for value in by_seed.values()})
    dust = 1e-12 * max(map(abs, values), default=0.0)
    return min((b - a for a, b in pairwise(values) if b - a > dust), default=10.0**-digits)


def seeds_for(effect: float, alpha: float, power: float, most: int = MOST_SEEDS) -> int | None:
    """The fewest seeds with which a one-sided t test at level ``alpha`` finds ``effect`` with probability ``power``.

    effect: in standard deviations of one seed, above 0. None where it takes more than ``most`` seeds. The power is that of
    the noncentral t distribution with n - 1 degrees of freedom and noncentrality effect * sqrt(n).
    """
    if not effect > 0 or power_of(effect, alpha, most) < power:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect, alpha, middle) >= power else (middle, high)
    return high


def power_of(effect: float, alpha: float, seeds: int) -> float:
    """The probability that a one-sided t test of ``seeds`` seeds finds ``effect`` (as :func:`seeds_for` has it)."""
    from scipy.special import nctdtr, stdtrit

    bar = float(stdtrit(seeds - 1, 1 - alpha))
    below = float(nctdtr(seeds - 1, effect * math.sqrt(seeds), bar))
    if math.isnan(below):  # so far out that the series does not converge
        return float(effect * math.sqrt(seeds) > bar)
    return 1 - below


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
