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


class Derived(dict[Place, float]):
    """A contrast whose number is no weighted sum: its keys are the cells, and :meth:`of` gives the number of one seed.

    resolution: the step of that number below which seeds are not told apart; a fit is trusted to four digits.
    """

    resolution = 1e-4

    def of(self, values: Mapping[Place, float]) -> float:
        """Return the number, from one seed's value of each of the cells; NaN where there is none."""
        raise NotImplementedError


def by_seed(contrast: Contrast, samples: Samples, seed: int) -> float:
    """Return the contrast of the values of one seed."""
    values = {at: samples[at][seed] for at in contrast}
    if isinstance(contrast, Derived):
        return contrast.of(values)
    return math.fsum(weight * values[at] for at, weight in contrast.items())


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

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval that two one-sided t tests at ``alpha`` do not rule out, of 1 - 2 alpha; NaN of unknown spread."""
        if self.seeds < 2 or not self.sd > 0:
            return math.nan, math.nan
        from scipy.special import stdtrit

        reach = float(stdtrit(self.seeds - 1, 1 - alpha)) * self.error
        return self.value - reach, self.value + reach

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
    each = [by_seed(contrast, samples, seed) for seed in seeds]
    if any(map(math.isnan, each)):  # a seed has no number
        return Estimate(math.nan, math.nan, len(each))
    mean = math.fsum(each) / len(each)
    if len(each) < 2:
        return Estimate(mean, math.nan, len(each))
    if isinstance(contrast, Derived):
        floor = contrast.resolution / math.sqrt(12)
    else:
        floor = resolution / math.sqrt(12) * math.sqrt(math.fsum(weight**2 for weight in contrast.values()))
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in each) / (len(each) - 1))
    return Estimate(mean, max(sd, floor), len(each))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of a mean of 0 of paired differences, which then had either sign with the same chance (Fisher 1935).

    Exact, over all signs, up to 16 differences; of more the mean's t test.
    """
    seen = abs(math.fsum(differences))
    if len(differences) > 16:
        mean = math.fsum(differences) / len(differences)
        sd = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (len(differences) - 1))
        return min(1.0, 2 * Estimate(abs(mean), sd, len(differences)).p_above(0.0))
    sums = [0.0]
    for difference in differences:
        sums = [total + sign * difference for total in sums for sign in (1, -1)]
    dust = 1e-12 * max(map(abs, differences), default=0.0)
    return sum(abs(total) >= seen - dust for total in sums) / len(sums)


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
