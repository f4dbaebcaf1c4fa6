"""The statistics of a verdict: a spread pooled over a table's cells, one-sided t tests of linear contrasts, and Holm.

Few seeds say little about their own spread, so the variance is pooled over all cells of a table (squared deviations
from each cell's own mean over the summed degrees of freedom). With 10 cells of 3 seeds a gap of two standard deviations
is then found in 76 % of the cases, against 49 % by a t test of the two cells alone. That supposes that all cells scatter alike;
where methods do not (one is a thousand times noisier than the others), a table pools over its columns or rows instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Place = tuple[str, str]
Contrast = Mapping[Place, float]
"""Weights of cells, by (row, column): the quantity sum(weight * mean of the cell)."""


class Derived(dict[Place, float]):
    """A contrast whose number is no weighted sum: its keys are the cells, and :meth:`of` the number of one seed."""

    def of(self, values: Mapping[Place, float]) -> float:
        """The number, from one seed's value of each of the cells."""
        raise NotImplementedError


def by_seed(contrast: Contrast, samples: Mapping[Place, Sequence[float]], seed: int) -> float:
    """The contrast of the values that stand at place ``seed`` of every cell's list."""
    values = {at: samples[at][seed] for at in contrast}
    if isinstance(contrast, Derived):
        return contrast.of(values)
    return math.fsum(weight * values[at] for at, weight in contrast.items())


def _derived(contrast: Derived, samples: Mapping[Place, Sequence[float]]) -> Estimate:
    """The mean over seeds, with their own spread; nothing is known where a cell lacks a seed or a seed has no number."""
    seeds = min(len(samples[at]) for at in contrast)
    each = [by_seed(contrast, samples, seed) for seed in range(seeds)]
    if any(len(samples[at]) != seeds for at in contrast) or any(map(math.isnan, each)):
        return Estimate(math.nan, math.nan, 0)
    spread = pooled([each])
    return Estimate(math.fsum(each) / seeds, math.sqrt(spread.variance / seeds), spread.df)


@dataclass(frozen=True)
class Spread:
    """Variance of one run within a cell, and its degrees of freedom."""

    variance: float
    df: int


def pooled(groups: Iterable[Sequence[float]]) -> Spread:
    """The pooled variance of ``groups``; 0 degrees of freedom where no group has two values."""
    squares, df = 0.0, 0
    for values in groups:
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += math.fsum((v - mean) ** 2 for v in values)
            df += len(values) - 1
    return Spread(squares / df if df else math.nan, df)


@dataclass(frozen=True)
class Estimate:
    """A contrast: its value, standard error and degrees of freedom."""

    value: float
    error: float
    df: float

    def p_above(self, threshold: float) -> float:
        """P of a value at least this high if the truth were ``threshold``: small says that the truth is above."""
        return self._tail(self.value - threshold)

    def p_below(self, threshold: float) -> float:
        """The same for values at least this low."""
        return self._tail(threshold - self.value)

    def _tail(self, distance: float) -> float:
        if self.df < 1 or distance == 0:
            return 1.0 if self.df < 1 or self.error == 0 else 0.5
        if self.error == 0:  # every seed gave the same number
            return 0.0 if distance > 0 else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.df, -distance / self.error))


def spreads(samples: Mapping[Place, Sequence[float]], group: Callable[[Place], str]) -> dict[Place, Spread]:
    """For each cell the spread pooled over the cells of its ``group``."""
    members: dict[str, list[Sequence[float]]] = {}
    for place, values in samples.items():
        members.setdefault(group(place), []).append(values)
    found = {name: pooled(values) for name, values in members.items()}
    return {place: found[group(place)] for place in samples}


def estimate(contrast: Contrast, samples: Mapping[Place, Sequence[float]], spread: Mapping[Place, Spread]) -> Estimate:
    """``contrast`` over the means of ``samples``, each cell with the spread of its group.

    Degrees of freedom are those of the group, or of several groups Satterthwaite's (1946), which are as many as if all had
    the same spread where they do have it and are equally large.
    """
    if isinstance(contrast, Derived):
        return _derived(contrast, samples)
    value = math.fsum(weight * math.fsum(samples[at]) / len(samples[at]) for at, weight in contrast.items())
    factors: dict[Spread, float] = {}
    for at, weight in contrast.items():
        factors[spread[at]] = factors.get(spread[at], 0.0) + weight**2 / len(samples[at])
    if not all(group.df for group in factors):
        return Estimate(value, math.nan, 0)
    variances = {group: group.variance * factor for group, factor in factors.items()}
    total = math.fsum(variances.values())
    if total == 0 or len(factors) == 1:
        return Estimate(value, math.sqrt(total), min(group.df for group in factors))
    df = total**2 / math.fsum(variance**2 / group.df for group, variance in variances.items())
    return Estimate(value, math.sqrt(total), df)


def error_by_seed(contrast: Contrast, samples: Mapping[Place, Sequence[float]], seeds: int) -> float | None:
    """The standard error of ``contrast`` worked out for each seed by itself: what cells share by seed drops out.

    None where there is nothing to pair: a single cell, a cell without all its ``seeds`` values, or fewer than three.
    """
    if seeds < 3 or len(contrast) < 2 or any(len(samples[at]) != seeds for at in contrast):
        return None
    each = [by_seed(contrast, samples, seed) for seed in range(seeds)]
    mean = math.fsum(each) / seeds
    return math.sqrt(math.fsum((value - mean) ** 2 for value in each) / (seeds - 1) / seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
