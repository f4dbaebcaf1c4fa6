from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.claims import CLAIMS, Claim, Layout, Verdict, judge
from sparselab.experiments.tables.validation import validated

Samples = dict[tuple[str, str], list[float]]
ROWS, COLUMNS = ("r1", "r2", "r3", "r4", "r5"), ("a", "b")


def claim(kind: str, **options: Any) -> Claim:
    return validated(CLAIMS[kind], {"kind": kind, "text": "a sentence", **options}, "claim")


def layout(rows: tuple[str, ...] = ROWS, loss: int = 1) -> Layout:
    cells = frozenset((row, column) for row in rows for column in COLUMNS)
    return Layout(rows, COLUMNS, cells, lambda place: (place[0], "a"), loss)


def spread(means: dict[tuple[str, str], float], seeds: int = 3, sd: float = 1.0) -> Samples:
    """Samples with exactly these means and this standard deviation."""
    steps = np.linspace(-1, 1, seeds)
    steps = steps / steps.std(ddof=1) * sd
    return {(row, column): list(means.get((row, column), 0.0) + steps) for row in ROWS for column in COLUMNS}


def verdict(one: Claim, samples: Samples, tier: str = "cpu", **options: Any) -> Verdict:
    (found,) = judge([one], tier, layout(**options), lambda metric: samples)
    return found


A, B = {"row": "r1", "column": "a"}, {"row": "r1", "column": "b"}


def test_an_order_holds_fails_or_stays_open():
    order = claim("order", a=A, b=B, relation=">")
    assert verdict(order, spread({("r1", "a"): 4.0})).verdict == "holds"
    assert verdict(order, spread({("r1", "b"): 4.0})).verdict == "fails"
    found = verdict(order, spread({("r1", "a"): 0.5}))
    assert str(found) == "inconclusive (3 seeds)"
    assert found.cells == (("r1", "a"), ("r1", "b"))
    assert verdict(claim("order", a=A, b=B, relation="<"), spread({("r1", "b"): 4.0})).verdict == "holds"


def test_the_p_value_of_an_order_by_hand():
    # gap 2, pooled sd 1, 3 seeds: t = 2 / sqrt(2 / 3) = 2.449 with 20 degrees of freedom
    found = verdict(claim("order", a=A, b=B), spread({("r1", "a"): 2.0}))
    assert found.p_holds == pytest.approx(0.01183, abs=1e-5)
    assert found.evidence == "r1 a − r1 b = +2.00 ± 0.82 (se), needs ≥ 0.00; p(holds) 0.012, p(fails) 0.988"


def test_margins_move_the_bar():
    close = spread({("r1", "b"): 0.5})
    assert verdict(claim("order", a=A, b=B, relation=">=", margin=3.0), close).verdict == "holds"
    assert verdict(claim("order", a=A, b=B, relation=">", margin=3.0), close).verdict == "fails"


def test_each_needs_every_row_and_mean_only_their_mean():
    gaps = spread({(row, "a"): 4.0 for row in ROWS[:4]})
    points = {"a": {"column": "a"}, "b": {"column": "b"}}
    assert verdict(claim("order", combine="mean", **points), gaps).verdict == "holds"
    assert verdict(claim("order", combine="each", **points), gaps).verdict == "inconclusive"
    assert verdict(claim("order", combine="each", rows=list(ROWS[:4]), **points), gaps).verdict == "holds"
    one_bad = spread({("r1", "a"): -5.0} | {(row, "a"): 4.0 for row in ROWS[1:]})
    assert verdict(claim("order", combine="each", **points), one_bad).verdict == "fails"


def test_rows_that_a_tier_lacks_are_skipped():
    points = {"a": {"column": "a"}, "b": {"column": "b"}}
    asked = claim("order", rows=["r1", "r9"], **points)
    assert verdict(asked, spread({("r1", "a"): 4.0})).verdict == "holds"
    assert verdict(claim("order", rows=["r9"], **points), spread({})).verdict == "not run"


def test_a_difference_in_a_band():
    band = claim("difference", a=A, b=B, low=1.0, high=9.0)
    assert verdict(band, spread({("r1", "a"): 5.0})).verdict == "holds"
    assert verdict(band, spread({("r1", "a"): 1.5})).verdict == "inconclusive"
    assert verdict(band, spread({("r1", "a"): -3.0})).verdict == "fails"
    assert verdict(band, spread({("r1", "a"): 14.0})).verdict == "fails"


def test_a_ratio_in_a_band_needs_no_division():
    shrinks = claim(
        "ratio", a={**A, "minus": B}, b={"row": "r2", "column": "a", "minus": {"row": "r2", "column": "b"}}, low=2
    )
    assert verdict(shrinks, spread({("r1", "a"): 10.0, ("r2", "a"): 1.0})).verdict == "holds"
    assert verdict(shrinks, spread({("r1", "a"): 10.0, ("r2", "a"): 0.0})).verdict == "holds"
    assert verdict(shrinks, spread({("r1", "a"): 10.0, ("r2", "a"): 9.0})).verdict == "fails"


def test_a_level_is_of_the_number_itself():
    level = claim("level", a=A, low=1.8)
    assert verdict(level, spread({("r1", "a"): 5.0})).verdict == "holds"
    assert verdict(level, spread({("r1", "a"): 2.0})).verdict == "inconclusive"
    assert verdict(level, spread({("r1", "a"): -2.0})).verdict == "fails"
    ceiling = claim("level", a=A, high=1.8)
    assert verdict(ceiling, spread({("r1", "a"): -2.0})).verdict == "holds"
    assert verdict(ceiling, spread({("r1", "a"): 5.0})).verdict == "fails"


def test_a_band_needs_an_end():
    with pytest.raises(ConfigError, match="a band needs low, high or both"):
        claim("level", a=A)
    with pytest.raises(ConfigError, match="a band needs low, high or both"):
        claim("ratio", a=A, b=B)
    with pytest.raises(ConfigError, match="low 3 is above high 2"):
        claim("difference", a=A, b=B, low=3, high=2)


def test_within_counts_only_losses():
    close = claim("within", a={"row": "r1", "column": "b"}, margin=3.0)
    assert verdict(close, spread({("r1", "b"): 50.0})).verdict == "holds"
    assert verdict(close, spread({("r1", "b"): -0.1})).verdict == "holds"
    assert verdict(close, spread({("r1", "b"): -9.0})).verdict == "fails"
    # of a metric where lower is better, a larger value is the loss
    assert verdict(close, spread({("r1", "b"): 50.0}), loss=-1).verdict == "fails"
    assert verdict(close, spread({("r1", "b"): -9.0}), loss=-1).verdict == "holds"


def test_monotone_trend_and_strict_steps():
    falling = {"kind": "monotone", "of": {"column": "a"}, "along": "rows", "direction": "falling"}
    trend, strict = (claim(**falling, strict=strict) for strict in (False, True))
    stairs = spread({(row, "a"): -8.0 * i for i, row in enumerate(ROWS)})
    assert verdict(trend, stairs).verdict == verdict(strict, stairs).verdict == "holds"
    cliff = spread({("r5", "a"): -20.0})
    assert verdict(trend, cliff).verdict == "holds"
    assert verdict(strict, cliff).verdict == "inconclusive"
    bump = spread({("r1", "a"): 40.0, ("r2", "a"): 10.0, ("r3", "a"): 20.0})
    assert verdict(trend, bump).verdict == "fails"


def test_monotone_of_a_gap_in_the_claims_own_order():
    gap = {"column": "a", "minus": {"column": "b"}}
    samples = spread({("r3", "a"): 20.0, ("r1", "a"): 10.0})
    asked = claim("monotone", of=gap, along="rows", direction="falling", rows=["r3", "r1", "r2"])
    assert verdict(asked, samples).verdict == "holds"


def test_too_few_seeds_are_inconclusive_whatever_they_say():
    order = claim("order", a=A, b=B)
    two = spread({("r1", "a"): 90.0}, seeds=2)
    assert str(verdict(order, two)) == "inconclusive (2 seeds)"
    headline = claim("order", a=A, b=B, headline=True)
    assert str(verdict(headline, spread({("r1", "a"): 90.0}, seeds=4))) == "inconclusive (4 seeds)"
    assert verdict(headline, spread({("r1", "a"): 90.0}, seeds=5)).verdict == "holds"


def test_a_small_error_is_shown_with_two_figures():
    samples = {place: [value * 1e-7 for value in values] for place, values in spread({("r1", "a"): -2.0}).items()}
    found = verdict(claim("order", a=A, b=B, relation=">=", margin=1e-8), samples)
    assert found.evidence.startswith("r1 a − r1 b = −2.0e−7 ± 8.2e−8 (se), needs ≥ −1.0e−8; ")
    samples = {place: [value * 1e-3 for value in values] for place, values in spread({("r1", "a"): 2.0}).items()}
    found = verdict(claim("order", a=A, b=B), samples)
    assert found.evidence.startswith("r1 a − r1 b = +0.00200 ± 0.00082 (se), needs ≥ 0.00000; ")


def test_not_run_while_a_cell_is_missing():
    samples = spread({("r1", "a"): 90.0})
    samples["r1", "b"] = []
    found = verdict(claim("order", a=A, b=B), samples)
    assert (found.verdict, found.evidence) == ("not run", "1 of 2 cells without a record")


def test_claims_of_other_tiers_are_left_out_and_keep_their_numbers():
    claims = [claim("order", a=A, b=B, tiers=["gpu"]), claim("order", a=A, b=B)]
    found = judge(claims, "cpu", layout(), lambda metric: spread({}))
    assert [v.name for v in found] == ["C2"]


def test_spreads_that_are_too_unequal_to_be_pooled_are_named():
    """The rule stays, but one method that is a hundred times noisier than the others must not decide in silence."""
    samples = spread({("r1", "a"): 5.0})
    assert "unequal" not in verdict(claim("order", a=A, b=B), samples).evidence
    samples["r5", "b"] = [-100.0, 0.0, 100.0]
    found = verdict(claim("order", a=A, b=B), samples)
    assert found.verdict == "inconclusive"
    note = "; unequal spreads are pooled (sd 100.00 in r5 · b, 1.00 in the middle cell); p(holds)"
    assert note in found.evidence


def test_more_claims_need_more_evidence():
    samples = spread({("r1", "a"): 1.6})
    order = claim("order", a=A, b=B)
    assert verdict(order, samples).verdict == "holds"
    many = judge([order] * 4, "cpu", layout(), lambda metric: samples)
    assert {v.verdict for v in many} == {"inconclusive"}


@settings(max_examples=40, deadline=None)
@given(st.floats(-6, 6), st.floats(0.01, 3))
def test_fails_needs_evidence_as_strong_as_holds(gap: float, sd: float):
    one = verdict(claim("order", a=A, b=B), spread({("r1", "a"): gap}, sd=sd))
    other = verdict(claim("order", a=B, b=A), spread({("r1", "a"): gap}, sd=sd))
    mirror = {"holds": "fails", "fails": "holds", "inconclusive": "inconclusive"}
    assert other.verdict == mirror[one.verdict]


def bare(samples: Samples) -> bool:
    """The negative control: the larger mean wins."""
    return sum(samples["r1", "a"]) > sum(samples["r1", "b"])


@pytest.mark.parametrize(("gap", "low", "high"), [(0, 0.0, 0.05), (2, 0.75, 1.0), (3, 0.95, 1.0)])
def test_drill_t2_error_and_power(gap: float, low: float, high: float):
    """1,000 tables of 10 cells and 3 seeds (20 degrees of freedom): errors at equal means, power at gaps of 2 and 3 sd.

    The level of either verdict is 5 % exactly, so draws of 1,000 tables give 4 to 6 % at equal means.
    """
    rng = np.random.default_rng(gap + 7)
    order = claim("order", a=A, b=B, relation=">")
    holds = fails = control = 0
    for _ in range(1000):
        draws = rng.standard_normal((len(ROWS), len(COLUMNS), 3)).tolist()
        samples = {(row, c): draws[i][j] for i, row in enumerate(ROWS) for j, c in enumerate(COLUMNS)}
        samples["r1", "a"] = [v + gap for v in samples["r1", "a"]]
        found = verdict(order, samples).verdict
        holds, fails, control = holds + (found == "holds"), fails + (found == "fails"), control + bare(samples)
    assert low <= holds / 1000 <= high
    assert fails / 1000 < 0.065
    if gap == 0:
        assert control / 1000 > 0.4  # the control is wrong about every second time


def test_a_bound_holds_inside_fails_outside_and_is_open_at_the_edge():
    inside = spread({("r1", "a"): 4.0}, sd=0.1)
    assert verdict(claim("bound", a=A, low=3, high=5), inside).verdict == "holds"
    assert verdict(claim("bound", a=A, high=3.5), inside).verdict == "fails"
    assert verdict(claim("bound", a=A, low=4), inside).verdict == "inconclusive"
    exact = {place: [4.0] * 3 for place in inside}  # the same number from every seed
    assert verdict(claim("bound", a=A, low=3.5, high=4.5), exact).verdict == "holds"
    assert verdict(claim("bound", a=A, high=3.5), exact).verdict == "fails"
    with pytest.raises(ConfigError, match="low, high or both"):
        claim("bound", a=A)
    with pytest.raises(ConfigError, match="is above high"):
        claim("bound", a=A, low=2, high=1)
