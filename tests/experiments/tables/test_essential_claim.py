"""The claim kind `essential`: the eps rule on a grid of sparsities, and the slopes before and after the knee."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.experiments.tables.claims import CLAIMS, Claim, Layout, Verdict, judge
from sparselab.experiments.tables.claims.essential import essential_sparsity, steepening

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
DROPS = (0.0, 0.2, 0.4, 0.9, 1.3, 5.0)
ROWS = ("dense", *(f"{100 * x:.0f} %" for x in GRID[1:]))
Samples = dict[tuple[str, str], dict[int, float]]


def claim(**options: Any) -> Claim:
    options = {"of": {"column": "a"}, "along": "rows", "eps": 1.0, **options}
    return validate(CLAIMS["essential"], {"kind": "essential", "text": "a sentence", **options}, "claim")


def layout(loss: int = 1) -> Layout:
    """Column d has the dense cell alone; a and b have the others."""
    numbers = dict(zip(ROWS, (None, *GRID[1:]), strict=True))
    cells = frozenset([("dense", "d"), *((row, column) for row in ROWS[1:] for column in "ab")])
    return Layout(
        ROWS, ("d", "a", "b"), cells, lambda place: ("dense", "d"), loss, lambda place, key: numbers[place[0]]
    )


def samples(*curves: tuple[float, ...], dense: float = 90.0, sign: int = -1, seeds: int = 5) -> Samples:
    """Values dense + sign * drop of columns a, b …, moved by a number of each seed that a paired drop does not see."""
    found: Samples = {("dense", "d"): {seed: dense + seed for seed in range(seeds)}}
    for column, drops in zip("ab", curves, strict=False):
        for row, drop in zip(ROWS[1:], drops[1:], strict=True):
            found[row, column] = {seed: dense + seed + sign * drop for seed in range(seeds)}
    return found


def verdict(one: Claim, values: Samples, where: Layout | None = None) -> Verdict:
    (found,) = judge([one], "cpu", where or layout(), lambda metric: values)
    return found


def test_the_largest_grid_point_within_eps_while_the_next_exceeds_it():
    """The dossier's example, by hand: 0.3."""
    assert essential_sparsity(GRID, DROPS, 1.0) == 0.3
    assert essential_sparsity(GRID, DROPS, 0.1) == 0.0
    assert essential_sparsity(GRID, DROPS, 0.9) == 0.3  # a drop of eps itself is allowed
    assert essential_sparsity(GRID, DROPS, 9.0) == 0.5  # the knee is beyond the grid


def test_a_drop_of_eps_itself_is_allowed_however_it_is_rounded():
    """Five of 500 images are a point; as differences of per cents some are 1.0000000000000142."""
    drops = [100 * (right / 500) - 100 * ((right - 5) / 500) for right in range(5, 501)]
    assert max(drops) > 1.0
    assert all(essential_sparsity((0.0, 0.1, 0.2), (0.0, drop, 9.0), 1.0) == 0.1 for drop in drops)
    assert essential_sparsity((0.0, 0.1, 0.2), (0.0, 1.0 + 1e-6, 9.0), 1.0) == 0.0


def test_a_score_that_is_no_number_is_a_drop():
    assert essential_sparsity(GRID, (0.0, 0.2, math.nan, 0.3, 0.4, 0.5), 1.0) == 0.1
    assert essential_sparsity(GRID, (0.0, 0.2, math.inf, 0.3, 0.4, 0.5), 1.0) == 0.1


def test_a_curve_that_recovers_later_returns_the_first_crossing():
    assert essential_sparsity(GRID, (0.0, 0.2, 1.4, 0.3, 0.1, 5.0), 1.0) == 0.1


def test_slopes_before_and_after_by_hand():
    """Before 0.3: 0.9 / 0.3 = 3. After: 0.4 / 0.1 = 4, so 4 - 1 x 3 = 1 and 4 - 5 x 3 = -11."""
    assert steepening(GRID, DROPS, 1.0, 1.0) == pytest.approx(1.0)
    assert steepening(GRID, DROPS, 1.0, 5.0) == pytest.approx(-11.0)
    line = tuple(10 * x for x in GRID)  # no flat part: the first step is the slope before
    assert steepening(GRID, line, 0.5, 1.0) == pytest.approx(0.0)
    assert math.isnan(steepening(GRID, DROPS, 9.0, 5.0))
    better = (0.0, -0.5, -0.2, -0.1, 4.0, 9.0)  # a curve that gains before it falls has no slope before
    assert steepening(GRID, better, 1.0, 5.0) == pytest.approx(41.0)


def test_a_band_is_judged_on_the_drop_of_each_seed():
    values = samples(DROPS)
    found = verdict(claim(low=0.25, high=0.35), values)
    assert found.verdict == "holds" and set(found.cells) == set(values)
    assert verdict(claim(low=0.35), values).verdict == "fails"
    assert verdict(claim(low=0.3), values).verdict == "inconclusive"  # on the edge of what the grid can say
    assert verdict(claim(low=0.05, eps=0.01, relative=True), values).verdict == "holds"  # 0.9 and less of 90 to 94


def test_lower_is_better_turns_drops_round():
    rises = samples(DROPS, sign=1)
    assert verdict(claim(low=0.25, high=0.35), rises, layout(-1)).verdict == "holds"
    assert verdict(claim(low=0.45), rises, layout(1)).verdict == "holds"  # read as accuracy it only gains


def test_one_curve_against_another():
    later = (0.0, 0.1, 0.2, 0.3, 0.4, 5.0)
    one = claim(of={"column": "b"}, minus={"column": "a"}, low=0.05)
    assert verdict(one, samples(DROPS, later)).verdict == "holds"
    assert verdict(one, samples(later, DROPS)).verdict == "fails"


def test_a_sharp_knee_and_none():
    sharp = claim(steeper=5)
    flat, line = (0.0, 0.02, 0.04, 0.06, 9.0, 20.0), tuple(30 * x for x in GRID)
    assert verdict(sharp, samples(flat)).verdict == "holds"
    assert verdict(sharp, samples(line)).verdict == "fails"
    none = verdict(sharp, samples((0.0, 0.01, 0.01, 0.01, 0.01, 0.01)))
    assert none.verdict == "inconclusive"


def test_each_column_has_a_curve_of_its_own():
    found = verdict(claim(of={}, columns=["a", "b"], low=0.25), samples(DROPS, (0.0, 3.0, 4.0, 5.0, 6.0, 7.0)))
    assert found.verdict == "fails" and "b: essential sparsity" in found.evidence
    assert claim(low=0.1).unset(layout()) == []
    assert claim(low=0.1, rows=["dense"]).bounds(layout()) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "needs low, high or steeper"),
        ({"low": 0.3, "high": 0.2}, "low 0.3 is above high 0.2"),
        ({"steeper": 2, "minus": {"column": "b"}}, "steeper is said of one curve"),
        ({"low": 0.1, "of": {"column": "a", "minus": {"column": "b"}}}, "not of differences"),
        ({"steeper": 0.5}, "greater than or equal to 1"),
    ],
)
def test_bad_claims_are_one_line(options: dict[str, Any], line: str):
    with pytest.raises(ConfigError, match=line):
        claim(**options)
