"""From samples to verdicts: rule 2. How often it errs, and what it finds, is in ``docs/verdicts.md``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from sparselab.experiments.tables.claims.claim import Bound, Claim, Layout
from sparselab.experiments.tables.statistics import (
    MOST_SEEDS,
    Estimate,
    Place,
    Samples,
    by_seed,
    estimate,
    holm,
    resolution,
    seeds_for,
    shared_seeds,
    sign_flip,
)

RULE = 2
SEEDS = 5
ALPHA = 0.05
POWER = 0.9

Watched = list[tuple[Bound, Estimate]]


@dataclass(frozen=True)
class Verdict:
    """The records' answer to a claim.

    verdict:  ``holds`` | ``fails`` | ``inconclusive`` | ``not run``.
    seeds:    seeds that have all of the claim's cells. ``exact``: no spread by construction, so nothing was tested.
    p_holds, p_fails: adjusted for the number of the table's claims; 1 where nothing could be tested.
    evidence: the numbers behind it, in a sentence. ``cells``: the cells that it rests on.
    needs:    of an inconclusive claim, in words: the seeds that would decide it with a probability of POWER.
    earlier:  the verdict under rule 1, where it was another one.
    """

    name: str
    claim: Claim
    verdict: str
    seeds: int
    evidence: str
    p_holds: float = 1.0
    p_fails: float = 1.0
    cells: tuple[Place, ...] = ()
    needs: str = ""
    earlier: str = ""
    exact: bool = False

    def __str__(self) -> str:
        if self.verdict != "inconclusive":
            return self.verdict
        return f"inconclusive ({_plural(self.seeds, 'seed') if self.seeds >= SEEDS else 'too few seeds'})"


@dataclass(frozen=True)
class _Trial:
    """A claim before the correction for the number of claims."""

    name: str
    claim: Claim
    cells: tuple[Place, ...] = ()
    seeds: int = 0
    verdict: str = ""  # already known; otherwise the p values say it
    p_holds: float = 1.0
    p_fails: float = 1.0
    evidence: str = ""
    bounds: Watched | None = None
    guards: Watched | None = None
    exact: bool = False


def judge(
    claims: Sequence[Claim],
    tier: str,
    layout: Layout,
    samples: Callable[[str | None], Samples],
    digits: int = 2,
    deterministic: Callable[[Place, str | None], bool] = lambda place, metric: False,
) -> list[Verdict]:
    """A verdict for each claim that is stated for ``tier``. A claim without a name is C1, C2 ... by its place in ``claims``.

    ``samples(metric)`` gives, for each (row, column), the value of each finished seed; None stands for the table's metric.
    ``deterministic(place, metric)`` says of which cells it is declared that no seed can change them. Claims that rest on such
    cells alone are compared; all others are tested, and share the error probability ALPHA.
    """
    seen = cache(samples)
    trials = [
        _try(claim.id or f"C{number}", claim, layout, seen(claim.metric), seen(None), digits, deterministic)
        for number, claim in enumerate(claims, 1)
        if claim.tiers is None or tier in claim.tiers
    ]
    tested = [trial for trial in trials if not trial.exact]
    adjusted = zip(holm([t.p_holds for t in tested]), holm([t.p_fails for t in tested]), strict=True)
    p_values = dict(zip((trial.name for trial in tested), adjusted, strict=True))
    return [_decide(t, tier, *p_values.get(t.name, (t.p_holds, t.p_fails)), len(tested)) for t in trials]


def _try(
    name: str,
    claim: Claim,
    layout: Layout,
    samples: Samples,
    finished: Samples,
    digits: int,
    deterministic: Callable[[Place, str | None], bool],
) -> _Trial:
    """``finished``: the table's own metric, which tells a cell that did not run from one that has no such number."""
    bounds, guards = claim.bounds(layout), claim.guards(layout)
    if not bounds:
        return _Trial(name, claim, verdict="not run", evidence="the tier has none of its cells")
    cells = tuple(sorted({place for bound in bounds + guards for place in bound.contrast}))
    if missing := [place for place in cells if not samples.get(place)]:
        ran = all(finished.get(place) for place in missing)
        what = f"a {claim.metric} in any record" if ran else "a record"
        evidence = f"{len(missing)} of {_plural(len(cells), 'cell')} without {what}"
        return _Trial(name, claim, cells, verdict="inconclusive" if ran else "not run", evidence=evidence)
    seeds = shared_seeds(cells, samples)
    if not seeds:
        return _Trial(name, claim, cells, verdict="inconclusive", evidence="no seed has all of its cells")
    step = resolution(samples, digits)
    shown, watched = ([(b, estimate(b.contrast, samples, seeds, step)) for b in some] for some in (bounds, guards))
    some = claim.combine == "any"
    evidence = _describe(shown, digits, some) + _compared(claim.compared(layout), samples, seeds, step, digits)
    evidence += claim.told(layout, samples, seeds)
    declared = all(deterministic(place, claim.metric) for place in cells)
    same = all(len(set(samples[place].values())) == 1 for place in cells)
    exact = declared and same
    if exact:  # no spread: the value itself, and no error
        evidence = _describe([(bound, Estimate(e.value, 0.0, e.seeds)) for bound, e in shown], digits, some)
    elif declared:
        evidence += "; declared deterministic, but seeds differ"
    if len(seeds) < SEEDS:
        evidence += f"; {_plural(len(seeds), 'seed')} of the {SEEDS} that a verdict takes"
        return _Trial(name, claim, cells, len(seeds), "inconclusive", 1.0, 1.0, evidence, shown, watched, exact)
    premise, told = _premise(claim.premises(layout), finished, digits)
    evidence += told
    if premise > ALPHA:
        return _Trial(name, claim, cells, len(seeds), "inconclusive", evidence=evidence)
    if exact:
        holds = (any if some else all)(e.value >= bound.at_least for bound, e in shown + watched)
        evidence += "; no seed can change it, compared exactly"
        verdict = "holds" if holds else "fails"
        return _Trial(name, claim, cells, len(seeds), verdict, 1.0 - holds, 0.0 + holds, evidence, exact=True)
    if some:
        p_holds = min(1.0, len(shown) * min(e.p_above(bound.at_least) for bound, e in shown))
        p_fails = max(e.p_below(bound.at_least) for bound, e in shown)
        found = max(p_holds, premise), max(p_fails, premise)
        return _Trial(name, claim, cells, len(seeds), "", *found, evidence, shown, watched)
    p_holds = max(e.p_above(bound.at_least) for bound, e in shown)
    both = shown + watched
    p_fails = min(1.0, len(both) * min(e.p_below(bound.at_least) for bound, e in both))
    found = max(p_holds, premise), max(p_fails, premise)
    return _Trial(name, claim, cells, len(seeds), "", *found, evidence, shown, watched)


def _premise(bounds: Sequence[Bound], samples: Samples, digits: int) -> tuple[float, str]:
    """(the largest p of what a claim presupposes, its numbers as more words of the evidence); 0 where it presupposes nothing.

    One that is not shown leaves the claim open: it neither holds nor fails of a network that has not learned the task.
    """
    if not bounds:
        return 0.0, ""
    cells = [place for bound in bounds for place in bound.contrast]
    if any(not samples.get(place) for place in cells) or len(seeds := shared_seeds(cells, samples)) < SEEDS:
        return 1.0, f"; it presupposes {bounds[0].says}, of which there are fewer than {SEEDS} seeds"
    step = resolution(samples, digits)
    shown = [(bound, estimate(bound.contrast, samples, seeds, step)) for bound in bounds]
    p = max(e.p_above(bound.at_least) for bound, e in shown)
    return p, f"; it presupposes {_describe(shown, digits)}, {'shown' if p <= ALPHA else 'not shown'} (p {_p(p)})"


def _decide(trial: _Trial, tier: str, p_holds: float, p_fails: float, claims: int) -> Verdict:
    verdict, evidence = trial.verdict, trial.evidence
    if not verdict:
        verdict = "fails" if p_fails <= ALPHA else "holds" if p_holds <= ALPHA else "inconclusive"
        evidence += f"; p(holds) {_p(p_holds)}, p(fails) {_p(p_fails)}"
    needs = _needs(trial, claims) if verdict == "inconclusive" else ""
    if verdict == "fails" and trial.guards and not trial.exact:
        evidence += _contrary(trial)
    earlier = trial.claim.rule1.get(tier, verdict)
    return Verdict(
        trial.name, trial.claim, verdict, trial.seeds, evidence, p_holds, p_fails, trial.cells, needs,
        "" if earlier == verdict else earlier, trial.exact,
    )  # fmt: skip


def _needs(trial: _Trial, claims: int) -> str:
    """The seeds that would decide the claim, were the effects and spreads those seen; "" where no spread is known.

    To hold, the least certain bound has to be found; to fail, any one that is violated. ALPHA is shared by all the table's
    claims, so the number is that of the claim that Holm's procedure looks at first.
    """
    if trial.exact:
        return _plural(SEEDS, "seed")
    bounds, watched = trial.bounds or [], (trial.bounds or []) + (trial.guards or [])
    effects = [e.effect(bound.at_least) for bound, e in bounds]
    worst = min((e.effect(bound.at_least) for bound, e in watched), default=math.nan)
    if not effects or math.isnan(sum(effects)) or math.isnan(worst):
        return ""
    if trial.claim.combine == "any":  # one of them is enough; none may be left
        holds, fails = (max(effects), len(bounds)), (-max(effects), 1)
    else:
        holds, fails = (min(effects), 1), (-worst, len(watched))
    schedules = [seeds_for(effect, ALPHA / claims / tests, POWER) for effect, tests in (holds, fails)]
    found = min((seeds for seeds in schedules if seeds is not None), default=None)
    if found is None:
        return f"more than {MOST_SEEDS:,} seeds"
    return _plural(max(SEEDS, found), "seed")


def _contrary(trial: _Trial) -> str:
    """The guard that decided, where no bound did."""
    assert trial.guards and trial.bounds
    least = min(e.p_below(bound.at_least) for bound, e in trial.bounds)
    bound, e = min(trial.guards, key=lambda item: item[1].p_below(item[0].at_least))
    if e.p_below(bound.at_least) >= least:
        return ""
    return f"; the other way: {bound.says} = {_figure(e.value, e.error, 2, '+')} ± {_figure(e.error, e.error, 2)}"


def _describe(shown: Watched, digits: int, some: bool = False) -> str:
    """The bound that is the least certain, with its numbers; of a claim that holds by ``some`` of them, the most certain."""

    def slack(item: tuple[Bound, Estimate]) -> float:
        bound, e = item
        distance = e.value - bound.at_least
        return distance / e.error if e.error and not math.isnan(e.error) else distance

    bound, e = (max if some else min)(shown, key=slack)
    known = not math.isnan(e.error) and e.error > 0
    error = f" ± {_figure(e.error, e.error, digits)} (se over {_plural(e.seeds, 'seed')})" if known else ""
    others = f" (the {'most' if some else 'least'} certain of {len(shown)})" if len(shown) > 1 else ""
    value, least = _figure(e.value, e.error, digits, "+"), _figure(bound.at_least, e.error, digits)
    return f"{bound.says} = {value}{error}, needs ≥ {least}{others}"


def _compared(differences: Sequence[Bound], samples: Samples, seeds: Sequence[int], step: float, digits: int) -> str:
    """The difference whose interval reaches furthest from 0, with the test of no difference."""
    if not differences or len(seeds) < 2:
        return ""
    found = [(bound, estimate(bound.contrast, samples, seeds, step)) for bound in differences]
    bound, e = max(found, key=lambda item: max(map(abs, item[1].interval(ALPHA))))
    low, high = e.interval(ALPHA)
    share = f"{100 * (1 - 2 * ALPHA):g} % interval"
    furthest = " (the furthest of " + str(len(found)) + ")" if len(found) > 1 else ""
    flips = sign_flip([by_seed(bound.contrast, samples, seed) for seed in seeds])
    ends = f"{_figure(low, e.error, digits, '+')} to {_figure(high, e.error, digits, '+')}"
    return f"; {share} of {bound.says} {ends}{furthest}, sign flips p = {_p(flips)}"


def _figure(value: float, error: float, digits: int, sign: str = "") -> str:
    """``value`` with the metric's digits, or with as many as show two figures of an error that they would hide."""
    if 0 < error < 10.0**-digits:
        digits = 1 - math.floor(math.log10(error))
    if digits > 6:
        text = f"{value:{sign}.1e}".replace("e-0", "e-") if value else "0"
    else:
        text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "−")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
