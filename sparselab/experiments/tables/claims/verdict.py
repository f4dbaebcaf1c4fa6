"""From samples to verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

from sparselab.experiments.tables.claims.claim import Bound, Claim, Layout
from sparselab.experiments.tables.statistics import Estimate, Place, error_by_seed, estimate, holm, spreads

SEEDS = 3
HEADLINE_SEEDS = 5
ALPHA = 0.05
UNEQUAL = 10  # times the median standard deviation, above which a cell is too noisy to share its spread unmentioned

Samples = Mapping[Place, Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """What the records say about a claim.

    verdict:  ``holds`` | ``fails`` | ``inconclusive`` | ``not run``.
    seeds:    fewest seeds among the claim's cells.
    p_holds, p_fails: adjusted for the number of the table's claims; 1 where nothing could be tested.
    evidence: the numbers behind it, in a sentence. ``cells``: the cells that it rests on.
    """

    name: str
    claim: Claim
    verdict: str
    seeds: int
    evidence: str
    p_holds: float = 1.0
    p_fails: float = 1.0
    cells: tuple[Place, ...] = ()

    def __str__(self) -> str:
        return f"{self.verdict} ({_plural(self.seeds, 'seed')})" if self.verdict == "inconclusive" else self.verdict


@dataclass(frozen=True)
class _Trial:
    """A claim before the correction for the number of claims."""

    name: str
    claim: Claim
    cells: tuple[Place, ...] = ()
    seeds: int = 0
    stop: str = ""
    verdict: str = ""
    p_holds: float = 1.0
    p_fails: float = 1.0
    evidence: str = ""


def judge(
    claims: Sequence[Claim],
    tier: str,
    layout: Layout,
    samples: Callable[[str | None], Samples],
    digits: int = 2,
    group: Callable[[Place], str] = lambda place: "all",
    seeds: int = 0,
) -> list[Verdict]:
    """A verdict for each claim that is stated for ``tier``, named C1, C2 ... by its place in ``claims``.

    ``samples(metric)`` gives, for each (row, column), one value per finished seed; None stands for the table's metric.
    Cells of the same ``group`` share a spread. seeds: of a complete cell, whose values stand in their order; what cells have
    in common by seed (initial weights, the order of data) then shows in the evidence, and decides nothing.
    """
    trials = [
        _try(f"C{number}", claim, layout, samples(claim.metric), digits, group, seeds)
        for number, claim in enumerate(claims, 1)
        if claim.tiers is None or tier in claim.tiers
    ]
    adjusted = zip(holm([t.p_holds for t in trials]), holm([t.p_fails for t in trials]), strict=True)
    return [_decide(trial, *p) for trial, p in zip(trials, adjusted, strict=True)]


def _try(
    name: str, claim: Claim, layout: Layout, samples: Samples, digits: int, group: Callable[[Place], str], seeds: int
) -> _Trial:
    bounds, guards = claim.bounds(layout), claim.guards(layout)
    if not bounds:
        return _Trial(name, claim, verdict="not run", stop="the tier has none of its cells")
    cells = tuple(sorted({place for bound in bounds + guards for place in bound.contrast}))
    counts = [len(samples.get(place, ())) for place in cells]
    if missing := counts.count(0):
        return _Trial(
            name,
            claim,
            cells,
            0,
            verdict="not run",
            stop=f"{missing} of {_plural(len(cells), 'cell')} without a record",
        )
    spread = spreads(samples, group)
    needed = HEADLINE_SEEDS if claim.headline else SEEDS
    shown = [(bound, estimate(bound.contrast, samples, spread)) for bound in bounds]
    evidence = _describe(shown, digits, samples, seeds) + _unequal(
        samples, {group(place) for place in cells}, group, digits
    )
    if min(counts) < needed:
        stop = f"{evidence}; needs {needed} seeds"
        return _Trial(name, claim, cells, min(counts), verdict="inconclusive", stop=stop)
    watched = shown + [(bound, estimate(bound.contrast, samples, spread)) for bound in guards]
    p_holds = max(e.p_above(bound.at_least) for bound, e in shown)
    p_fails = min(1.0, len(watched) * min(e.p_below(bound.at_least) for bound, e in watched))
    return _Trial(name, claim, cells, min(counts), "", "", p_holds, p_fails, evidence)


def _decide(trial: _Trial, p_holds: float, p_fails: float) -> Verdict:
    if trial.stop:
        return Verdict(trial.name, trial.claim, trial.verdict, trial.seeds, trial.stop, cells=trial.cells)
    if p_fails <= ALPHA:
        verdict = "fails"
    else:
        verdict = "holds" if p_holds <= ALPHA else "inconclusive"
    evidence = f"{trial.evidence}; p(holds) {_p(p_holds)}, p(fails) {_p(p_fails)}"
    return Verdict(trial.name, trial.claim, verdict, trial.seeds, evidence, p_holds, p_fails, trial.cells)


def _describe(shown: list[tuple[Bound, Estimate]], digits: int, samples: Samples, seeds: int) -> str:
    """The bound that is the least certain, with its numbers."""

    def slack(item: tuple[Bound, Estimate]) -> float:
        bound, e = item
        distance = e.value - bound.at_least
        return distance / e.error if e.error and not math.isnan(e.error) else distance

    bound, e = min(shown, key=slack)
    error = "" if math.isnan(e.error) else f" ± {_figure(e.error, e.error, digits)} (se"
    if error:
        paired = error_by_seed(bound.contrast, samples, seeds)
        error += ")" if paired is None else f"; {_figure(paired, paired, digits)} seed by seed)"
    others = f" (the least certain of {len(shown)})" if len(shown) > 1 else ""
    value, least = _figure(e.value, e.error, digits, "+"), _figure(bound.at_least, e.error, digits)
    return f"{bound.says} = {value}{error}, needs ≥ {least}{others}"


def _figure(value: float, error: float, digits: int, sign: str = "") -> str:
    """``value`` with the metric's digits, or with as many as show two figures of an error that they would hide."""
    if 0 < error < 10.0**-digits:
        digits = 1 - math.floor(math.log10(error))
    if digits > 6:
        text = f"{value:{sign}.1e}".replace("e-0", "e-") if value else "0"
    else:
        text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "−")


def _unequal(samples: Samples, groups: set[str], group: Callable[[Place], str], digits: int) -> str:
    """A warning where the cells that share a spread do not scatter alike: one of them then decides for all."""
    notes = []
    for name in sorted(groups):
        sds = {at: stdev(values) for at, values in samples.items() if group(at) == name and len(values) > 1}
        noisiest = max(sds, key=lambda at: sds[at], default=None)
        if noisiest is not None and sds[noisiest] > UNEQUAL * (middle := median(sds.values())):
            where = " · ".join(dict.fromkeys(noisiest))
            sd, usual = (_figure(value, value, digits) for value in (sds[noisiest], middle))
            notes.append(f"sd {sd} in {where}, {usual if middle else 0} in the middle cell")
    return f"; unequal spreads are pooled ({'; '.join(notes)})" if notes else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
