"""Runs side by side: those that differ in the seed alone are one configuration, whose numbers have a mean and a spread.

Configurations are compared seed by seed, as claims are: with the same seed they share initial weights and the order of the
data, and what they share drops out of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparselab.config.schema import identified_option
from sparselab.core.errors import Issues, did_you_mean, refuse, short, spell
from sparselab.experiments.comparison.found import Run, settings
from sparselab.experiments.tables.statistics import holm

PARENT = "cell:"
NO_HEADLINE = ("loss", "n")
ABSENT = "–"
DUST = 1e-9  # of the largest difference: less is rounding, and no spread


@dataclass
class Group:
    """Finished runs that differ in the seed alone: by seed, and what their config says, without the seed."""

    settings: dict[str, str]
    runs: dict[int, Run] = field(default_factory=dict)

    def values(self, metric: str) -> dict[int, float]:
        """The metric of each seed that has it."""
        return {seed: run.metrics[metric] for seed, run in self.runs.items() if metric in run.metrics}


@dataclass(frozen=True)
class Difference:
    """A configuration less the first one, over the seeds that both have.

    mean: of the differences. error: its standard error, NaN of a single seed. p: two-sided, of a paired t test, by Holm's
    procedure over all that are compared; None where there is no spread to go by.
    """

    mean: float
    error: float
    seeds: int
    p: float | None


def groups(runs: Sequence[Run]) -> list[Group]:
    """The finished runs by configuration, in the order given. ConfigError where two runs are one seed of one configuration."""
    known = {run.id: run for run in runs}
    found: dict[tuple[tuple[str, str], ...], Group] = {}
    issues = Issues()
    for run in runs:
        if run.state != "finished":
            continue
        own = _settings(run, known)
        group = found.setdefault(tuple(sorted(own.items())), Group(own))
        seed = int(run.record["config"].get("seed", 0))
        if seed in group.runs:
            other = group.runs[seed].id
            issues.add(run.id, f"differs from {other} in nothing that its config says", "name one of the two")
        group.runs[seed] = run
    issues.raise_if_any()
    return list(found.values())


def differing(found: Sequence[Group]) -> list[str]:
    """The settings by which the groups are told apart, those of members after the members themselves.

    An option that only some have, and these with one value, goes with the member that it belongs to.
    """
    keys = sorted(dict.fromkeys(key for group in found for key in group.settings), key=lambda key: key.count("."))
    values = {key: {group.settings.get(key) for group in found} for key in keys}
    short = [key for key in keys if len(values[key] - {None}) > 1]
    told = {tuple(group.settings.get(key) for key in short) for group in found}
    return short if len(told) == len(found) else [key for key in keys if len(values[key]) > 1]


def metric_of(found: Sequence[Group], asked: str) -> str:
    """The metric to compare: the one asked for, or the first score on the test split that all have. ConfigError for neither."""
    each = [set(run.metrics) for group in found for run in group.runs.values()]
    shared = [key for key in found[0].runs[min(found[0].runs)].metrics if all(key in one for one in each)]
    if asked:
        if asked not in shared:
            refuse(f"metric={short(asked, 40)}", "not every run has it", did_you_mean(asked, shared))
        return asked
    heads = [
        key for key in shared if key.startswith("test.") and key[5:] not in NO_HEADLINE and not key.endswith("_se")
    ]
    if not (heads or shared):
        refuse("metric", "the runs have no number in common", "compare runs of one kind")
    return (heads or shared)[0]


def against_the_first(found: Sequence[Group], metric: str) -> list[Difference | None]:
    """Each group against the first one; None of the first itself, and of one that shares no seed with it."""
    first, pairs = found[0].values(metric), []
    for group in found[1:]:
        own = group.values(metric)
        pairs.append([own[seed] - first[seed] for seed in sorted(own.keys() & first.keys())])
    p_values = [_p(pair) for pair in pairs]
    tested = holm([p for p in p_values if p is not None])
    adjusted = iter(tested)
    out: list[Difference | None] = [None]
    for pair, p in zip(pairs, p_values, strict=True):
        if not pair:
            out.append(None)
            continue
        mean, sd = mean_sd(pair)
        out.append(Difference(mean, sd / math.sqrt(len(pair)), len(pair), None if p is None else next(adjusted)))
    return out


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1); NaN of a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _p(pair: Sequence[float]) -> float | None:
    if len(pair) < 2:
        return None
    mean, sd = mean_sd(pair)
    if not sd > DUST * max(map(abs, pair)):
        return None
    from scipy.special import stdtr

    return float(2 * stdtr(len(pair) - 1, -abs(mean) / (sd / math.sqrt(len(pair)))))


def _settings(run: Run, known: Mapping[str, Run]) -> dict[str, str]:
    """Return the part of a run's config that may change its result, without the seed and without those of its parents."""
    own = {
        key: _spelled(value, known)
        for key, value in settings(run.record["config"])
        if key != "seed" and identified_option(key)
    }
    data = run.record.get("data") or {}
    return {**own, "data": str(data.get("fingerprint", ""))[:12]} if data.get("fingerprint") else own


def _spelled(value: Any, known: Mapping[str, Run]) -> str:
    if isinstance(value, str) and value.startswith(PARENT):
        id, _, at = value.removeprefix(PARENT).partition("@")
        parent = known.get(id)
        if parent is None or not parent.record:
            return value
        said = " ".join(text for text in parent.said() if not text.startswith("seed="))
        return f"{PARENT}{said}{f' at {at}' if at else ''}"
    return spell(value)
