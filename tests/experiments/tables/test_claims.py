from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.experiments.tables.claims import CLAIMS, Claim, Layout, Verdict, judge

Samples = dict[tuple[str, str], dict[int, float]]
ROWS, COLUMNS = ("r1", "r2", "r3", "r4", "r5"), ("a", "b")


def claim(kind: str, **options: Any) -> Claim:
    return validate(CLAIMS[kind], {"kind": kind, "text": "a sentence", **options}, "claim")


def layout(rows: tuple[str, ...] = ROWS, loss: int = 1) -> Layout:
    cells = frozenset((row, column) for row in rows for column in COLUMNS)
    return Layout(rows, COLUMNS, cells, lambda place: (place[0], "a"), loss)


def spread(means: dict[tuple[str, str], float], seeds: int = 5, sd: float = 1.0) -> Samples:
    """Samples with these means and standard deviation; each cell has an order of the seeds of its own."""
    steps = np.linspace(-1, 1, seeds)
    steps = steps / (steps.std(ddof=1) if seeds > 1 else 1.0) * sd
    found: Samples = {}
    for number, place in enumerate((row, column) for row in ROWS for column in COLUMNS):
        order = np.random.default_rng(number).permutation(seeds)
        found[place] = dict(enumerate((means.get(place, 0.0) + steps[order]).tolist()))
    return found


def verdict(one: Claim, samples: Samples, tier: str = "cpu", deterministic: Any = None, **options: Any) -> Verdict:
    declared = {"deterministic": deterministic} if deterministic else {}
    (found,) = judge([one], tier, layout(**options), lambda metric: samples, **declared)
    return found


A, B = {"row": "r1", "column": "a"}, {"row": "r1", "column": "b"}


def test_an_order_holds_fails_or_stays_open():
    order = claim("order", a=A, b=B, relation=">")
    assert verdict(order, spread({("r1", "a"): 4.0})).verdict == "holds"
    assert verdict(order, spread({("r1", "b"): 4.0})).verdict == "fails"
    found = verdict(order, spread({("r1", "a"): 0.5}))
    assert str(found) == "inconclusive (5 seeds)"
    assert found.cells == (("r1", "a"), ("r1", "b"))
    assert verdict(claim("order", a=A, b=B, relation="<"), spread({("r1", "b"): 4.0})).verdict == "holds"


def test_the_p_value_of_an_order_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, error sqrt(2.5 / 5), t = 4.243 with 4 degrees of freedom."""
    samples = spread({})
    samples["r1", "a"] = {seed: 100.0 * seed + seed + 1 for seed in range(5)}
    samples["r1", "b"] = {seed: 100.0 * seed for seed in range(5)}
    found = verdict(claim("order", a=A, b=B), samples)
    assert found.p_holds == pytest.approx(0.00662, abs=1e-5)
    assert (
        found.evidence == "r1 a − r1 b = +3.00 ± 0.71 (se over 5 seeds), needs ≥ 0.00; p(holds) 0.007, p(fails) 0.993"
    )


def test_what_cells_of_a_seed_share_drops_out():
    """A difference that every seed shows is found, however far seeds lie apart and however noisy another cell is."""
    samples = spread({}, sd=50.0)
    samples["r1", "a"] = {seed: value + 0.3 + 0.01 * seed for seed, value in samples["r1", "b"].items()}
    samples["r5", "b"] = {seed: 1e6 * (-1) ** seed for seed in range(5)}
    assert verdict(claim("order", a=A, b=B), samples).verdict == "holds"


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


def test_any_needs_one_row_and_fails_where_none_is_left():
    points = {"a": {"column": "a"}, "b": {"column": "b"}, "combine": "any"}
    assert verdict(claim("order", **points), spread({("r3", "a"): 6.0})).verdict == "holds"
    mixed = spread({("r3", "a"): 6.0} | {(row, "b"): 6.0 for row in ROWS if row != "r3"})
    assert verdict(claim("order", **points), mixed).verdict == "holds"
    assert verdict(claim("order", **points), spread({(row, "b"): 6.0 for row in ROWS})).verdict == "fails"
    open_ = verdict(claim("order", **points), spread({(row, "b"): 6.0 for row in ROWS[1:]}))
    assert open_.verdict == "inconclusive" and "the most certain of 5" in open_.evidence
    with pytest.raises(ConfigError, match="any is for kind: order"):
        claim("bound", a={"column": "a"}, low=0, combine="any")


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
    level = claim("bound", a=A, low=1.8)
    assert verdict(level, spread({("r1", "a"): 5.0})).verdict == "holds"
    assert verdict(level, spread({("r1", "a"): 2.0})).verdict == "inconclusive"
    assert verdict(level, spread({("r1", "a"): -2.0})).verdict == "fails"
    ceiling = claim("bound", a=A, high=1.8)
    assert verdict(ceiling, spread({("r1", "a"): -2.0})).verdict == "holds"
    assert verdict(ceiling, spread({("r1", "a"): 5.0})).verdict == "fails"


def test_a_band_needs_an_end():
    with pytest.raises(ConfigError, match="a band needs low, high or both"):
        claim("bound", a=A)
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
    for headline in (False, True):
        order = claim("order", a=A, b=B, headline=headline)
        few = verdict(order, spread({("r1", "a"): 90.0}, seeds=4))
        assert str(few) == "inconclusive (too few seeds)"
        assert few.evidence.endswith("; 4 seeds of the 5 that a verdict takes") and few.needs == "5 seeds"
        assert verdict(order, spread({("r1", "a"): 90.0})).verdict == "holds"
    assert verdict(claim("order", a=A, b=B), spread({}, seeds=1)).needs == ""


def test_a_seed_without_all_its_cells_is_not_tested():
    samples = spread({("r1", "a"): 9.0}, seeds=7)
    del samples["r1", "a"][2], samples["r1", "b"][4]
    found = verdict(claim("order", a=A, b=B), samples)
    assert (found.verdict, found.seeds) == ("holds", 5)
    del samples["r1", "b"][0]
    assert str(verdict(claim("order", a=A, b=B), samples)) == "inconclusive (too few seeds)"
    apart = samples | {("r1", "a"): {0: 1.0}, ("r1", "b"): {1: 1.0}}
    assert verdict(claim("order", a=A, b=B), apart).evidence == "no seed has all of its cells"


def test_a_mean_holds_only_while_no_half_of_it_contradicts():
    points = {"a": {"column": "a"}, "b": {"column": "b"}, "rows": ["r1", "r2"], "combine": "mean"}
    halves = spread({("r1", "a"): 30.0, ("r2", "a"): -8.0})
    found = verdict(claim("order", **points), halves)
    assert found.verdict == "fails"
    assert "; the other way: r2: a − b = " in found.evidence
    assert verdict(claim("order", **points), spread({("r1", "a"): 30.0, ("r2", "a"): -0.1})).verdict == "holds"
    # a margin allows what it allows to each half, too; a band asks its own end of each
    assert verdict(claim("order", **points, relation=">=", margin=12.0), halves).verdict == "holds"
    level = claim("bound", a={"column": "a"}, rows=["r1", "r2"], combine="mean", low=5)
    assert verdict(level, spread({("r1", "a"): 30.0, ("r2", "a"): -8.0})).verdict == "fails"


def test_seeds_that_power_would_take():
    """An effect of 0.9 sd: at 5 % of one claim, one-sided, the noncentral t has 90 % with 13 seeds."""
    samples = spread({})
    differences = np.array([-1.0, 0.0, 1.0, 2.0, 3.0]) / np.sqrt(2.5)
    samples["r1", "b"] = dict.fromkeys(range(5), 0.0)
    samples["r1", "a"] = dict(enumerate((differences - differences.mean() + 0.9).tolist()))
    one = verdict(claim("order", a=A, b=B), samples)
    assert (one.verdict, one.needs) == ("inconclusive", "13 seeds")
    many = judge([claim("order", a=A, b=B)] * 8, "cpu", layout(), lambda metric: samples)
    assert many[0].needs == "21 seeds"
    other_way = verdict(claim("order", a=B, b=A), samples)
    assert (other_way.verdict, other_way.needs) == ("inconclusive", "13 seeds")
    samples["r1", "a"] = dict(enumerate((differences - differences.mean() + 0.001).tolist()))
    assert verdict(claim("order", a=A, b=B), samples).needs == "more than 1,000 seeds"


def test_deterministic_cells_are_compared_and_share_no_error():
    samples = {place: dict.fromkeys(range(5), 12.0) for place in spread({})}
    declared = {"deterministic": lambda place, metric: place[0] == "r1"}
    band = claim("bound", a=A, low=12, high=12)
    order = claim("order", a={"row": "r2", "column": "a"}, b={"row": "r2", "column": "b"})
    (exact, tested) = judge([band, order], "cpu", layout(), lambda metric: samples, **declared)
    assert exact.exact and exact.verdict == "holds"
    assert (
        exact.evidence
        == "r1 a = +12.00, needs ≥ 12.00 (the least certain of 2); no seed can change it, compared exactly"
    )
    assert not tested.exact and tested.p_holds == tested.p_fails == 0.5  # the family has one claim, the tested one
    assert verdict(claim("bound", a=A, low=12.001), samples, **declared).verdict == "fails"
    # the same number from every seed by chance: the last digit says how near they may be
    assert verdict(band, samples).verdict == "inconclusive"
    samples["r1", "a"] |= {3: 12.5}
    moved = verdict(claim("bound", a=A, low=11), samples, **declared)
    assert not moved.exact and "; declared deterministic, but seeds differ; p(holds)" in moved.evidence
    few = {place: {0: 12.0} for place in samples}
    early = verdict(band, few, **declared)
    assert str(early) == "inconclusive (too few seeds)" and early.needs == "5 seeds"


def test_the_verdict_of_rule_1_stands_beside_another():
    high = spread({("r1", "a"): 9.0})
    changed = claim("order", a=A, b=B, rule1={"cpu": "inconclusive", "gpu": "fails"})
    assert verdict(changed, high).earlier == "inconclusive"
    assert verdict(changed, high, tier="gpu").earlier == "fails" and verdict(changed, high, tier="paper").earlier == ""
    assert verdict(claim("order", a=A, b=B, rule1={"cpu": "holds"}), high).earlier == ""


def test_a_small_error_is_shown_with_two_figures():
    steps = [-1.0, 0.0, 1.0, 2.0, 3.0]
    samples = spread({}) | {("r1", "b"): dict.fromkeys(range(5), 0.0)}
    samples["r1", "a"] = {seed: -1e-7 * step for seed, step in enumerate(steps)}
    found = verdict(claim("order", a=A, b=B, relation=">=", margin=1e-8), samples)
    assert found.evidence.startswith("r1 a − r1 b = −1.0e−7 ± 7.1e−8 (se over 5 seeds), needs ≥ −1.0e−8; ")
    samples["r1", "a"] = {seed: 1e-3 * step for seed, step in enumerate(steps)}
    found = verdict(claim("order", a=A, b=B), samples)
    assert found.evidence.startswith("r1 a − r1 b = +0.00100 ± 0.00071 (se over 5 seeds), needs ≥ 0.00000; ")


def test_not_run_while_a_cell_is_missing():
    samples = spread({("r1", "a"): 90.0})
    samples["r1", "b"] = {}
    found = verdict(claim("order", a=A, b=B), samples)
    assert (found.verdict, found.evidence) == ("not run", "1 of 2 cells without a record")


def test_a_cell_that_ran_and_has_no_such_number_is_no_missing_record():
    """A spread of shapes, say, where no unit has a shape."""
    ran, numbers = spread({}), {place: {} if place == ("r1", "b") else by_seed for place, by_seed in spread({}).items()}
    for finished, verdict_, what in (
        (ran, "inconclusive (too few seeds)", "a test.spread in any record"),
        (numbers, "not run", "a record"),
    ):
        measured = {None: finished, "test.spread": numbers}
        (found,) = judge([claim("order", metric="test.spread", a=A, b=B)], "cpu", layout(), measured.__getitem__)
        assert (str(found), found.evidence) == (verdict_, f"1 of 2 cells without {what}")


def test_claims_of_other_tiers_are_left_out_and_keep_their_numbers():
    claims = [claim("order", a=A, b=B, tiers=["gpu"]), claim("order", a=A, b=B)]
    found = judge(claims, "cpu", layout(), lambda metric: spread({}))
    assert [v.name for v in found] == ["C2"]


def test_more_claims_need_more_evidence():
    samples = spread({("r1", "a"): 2.0})
    order = claim("order", a=A, b=B)
    assert verdict(order, samples).verdict == "holds"
    many = judge([order] * 12, "cpu", layout(), lambda metric: samples)
    assert {v.verdict for v in many} == {"inconclusive"}


@settings(max_examples=40)
@given(st.floats(-6, 6), st.floats(0.01, 3))
def test_fails_needs_evidence_as_strong_as_holds(gap: float, sd: float):
    one = verdict(claim("order", a=A, b=B), spread({("r1", "a"): gap}, sd=sd))
    other = verdict(claim("order", a=B, b=A), spread({("r1", "a"): gap}, sd=sd))
    mirror = {"holds": "fails", "fails": "holds", "inconclusive": "inconclusive"}
    assert other.verdict == mirror[one.verdict]


def test_a_bound_holds_inside_fails_outside_and_is_open_at_the_edge():
    inside = spread({("r1", "a"): 4.0}, sd=0.1)
    assert verdict(claim("bound", a=A, low=3, high=5), inside).verdict == "holds"
    assert verdict(claim("bound", a=A, high=3.5), inside).verdict == "fails"
    assert verdict(claim("bound", a=A, low=4), inside).verdict == "inconclusive"
    exact = {place: dict.fromkeys(range(5), 4.0) for place in inside}  # the same number from every seed
    assert verdict(claim("bound", a=A, low=3.5, high=4.5), exact).verdict == "holds"
    assert verdict(claim("bound", a=A, high=3.5), exact).verdict == "fails"
    with pytest.raises(ConfigError, match="low, high or both"):
        claim("bound", a=A)
    with pytest.raises(ConfigError, match="is above high"):
        claim("bound", a=A, low=2, high=1)
