"""The claim kind `fit`: a law fitted to each seed along a numeric axis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtr

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.experiments.tables import grid
from sparselab.experiments.tables.claims import CLAIMS, Claim, Layout, Verdict, judge
from sparselab.experiments.tables.laws import beside_an_offset, curve_of
from sparselab.experiments.tables.load import load

ROWS, COLUMNS = ("r1", "r2", "r3", "r4"), ("a", "b")
X = {"r1": 1.0, "r2": 4.0, "r3": 2.0, "r4": 8.0}  # the axis decides the order, not the table
Samples = dict[tuple[str, str], dict[int, float]]


def claim(**options: Any) -> Claim:
    options = {"of": {"column": "a"}, "along": "rows", "x": "problem.n", **options}
    return validate(CLAIMS["fit"], {"kind": "fit", "text": "a sentence", **options}, "claim")


def layout(numbers: dict[str, float | None] = X) -> Layout:
    cells = frozenset((row, column) for row in ROWS for column in COLUMNS)
    return Layout(ROWS, COLUMNS, cells, lambda place: None, 1, lambda place, key: numbers[place[0]])


def seeds(law: Any, shifts: tuple[float, ...] = (-0.02, -0.01, 0.0, 0.01, 0.02), other: Any = lambda x: 1.0) -> Samples:
    """Values of a law of x in column a, times a factor of each seed, with an exponent of each seed; ``other`` in column b."""
    return {
        (row, column): dict(
            enumerate((law if column == "a" else other)(X[row]) * (1 + 9 * s) * X[row] ** s for s in shifts)
        )
        for row in ROWS
        for column in COLUMNS
    }


def verdict(one: Claim, samples: Samples, where: Layout | None = None) -> Verdict:
    (found,) = judge([one], "cpu", where or layout(), lambda metric: samples)
    return found


def power(b: float) -> Any:
    return lambda x: 3 * x**b


def test_an_exponent_lies_in_a_band_or_not():
    one = claim(low=-0.7, high=-0.3)
    assert verdict(one, seeds(power(-0.5))).verdict == "holds"
    assert verdict(one, seeds(power(-0.1))).verdict == verdict(one, seeds(power(-1.0))).verdict == "fails"
    assert verdict(one, seeds(power(-0.3))).verdict == "inconclusive"
    assert verdict(claim(low=0.0), seeds(power(0.5))).verdict == "holds"  # a sign
    assert verdict(claim(high=0.0), seeds(power(0.5))).verdict == "fails"


def test_a_seed_is_fitted_by_itself_and_what_its_cells_share_drops_out():
    """Exponents -0.52 to -0.48 of five seeds with factors of their own: t = 0.1 / (0.0158 / sqrt 5), 4 degrees of freedom."""
    found = verdict(claim(low=-0.6, high=-0.4), seeds(power(-0.5)))
    assert found.seeds == 5 and "exponent = −0.5000 ± 0.0071 (se" in found.evidence
    assert found.p_holds == pytest.approx(stdtr(4, -0.1 / (math.sqrt(2.5e-4) / math.sqrt(5))), rel=1e-6)
    assert found.cells == tuple((row, "a") for row in ROWS)


def test_the_fit_is_scipys_and_its_r2_is_asked_for():
    rng = np.random.default_rng(0)
    x, y = np.log([1.0, 2.0, 4.0, 8.0]), rng.normal(size=4)
    curve = curve_of("power", np.exp(x), np.exp(y))
    slope, offset = np.polyfit(x, y, 1)
    left = y - slope * x - offset
    assert curve.slope == pytest.approx(slope) and curve.r2 == pytest.approx(
        1 - left @ left / ((y - y.mean()) @ (y - y.mean()))
    )
    bent = seeds(lambda x: x**0.5 if x != 2 else 9.0)
    assert verdict(claim(r2=0.95), seeds(power(0.5))).verdict == "holds"
    assert verdict(claim(r2=0.95), bent).verdict == "fails"


@pytest.mark.parametrize(
    ("law", "curve", "low", "high"),
    [
        ("exponential", lambda x: 2 * math.exp(-0.3 * x), -0.35, -0.25),
        ("logarithmic", lambda x: 5 - 2 * math.log(x), -2.3, -1.7),
        ("linear", lambda x: 40 + 3 * x, 2.0, 4.5),
        ("offset_power", lambda x: 4 + 2 * x**-1.5, -2.0, -1.0),
    ],
)
def test_other_laws(law: str, curve: Any, low: float, high: float):
    samples = seeds(curve, (-2e-4, -1e-4, 0.0, 1e-4, 2e-4))
    assert verdict(claim(law=law, low=low, high=high), samples).verdict == "holds"
    assert verdict(claim(law=law, low=high + 0.1), samples).verdict == "fails"


@pytest.mark.parametrize("b", [-1.7, -0.33, 0.5, 2.25])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_an_exponentbeside_an_offset_is_found_exactly(b: float, scale: float):
    x = [scale * v for v in (1.0, 2.0, 4.0, 8.0, 16.0)]
    found = beside_an_offset(x, [7.0 - 2.0 * (v / scale) ** b for v in x])
    assert found.slope == pytest.approx(b, abs=1e-3) and found.r2 == pytest.approx(1, abs=1e-6)


def test_a_stretched_exponential_takes_five_places_and_is_fitted_to_every_seed():
    rows = tuple(f"r{i}" for i in range(8))
    x = {row: 2.0**i for i, row in enumerate(rows)}
    cells = frozenset((row, "a") for row in rows)
    where = Layout(rows, ("a",), cells, lambda place: None, 1, lambda place, key: x[place[0]])
    samples = {
        (row, "a"): {seed: 0.07 + 0.01 * seed + math.exp(-1 - 0.3 * x[row] ** (0.5 + 0.01 * seed)) for seed in range(5)}
        for row in rows
    }
    one = claim(law="stretched", low=0.3, high=0.8, r2=0.99, direction="falling", curve=True)
    found = verdict(one, samples, where)
    assert found.verdict == "holds" and "curve through the means: c 0.09" in found.evidence
    assert "largest residual" in found.evidence and "to" in found.evidence
    assert verdict(claim(law="stretched", low=0.9), samples, where).verdict == "fails"
    few = claim(law="stretched", low=0.1, rows=list(rows[:4]))
    assert verdict(few, samples, where).verdict == "not run"


def test_a_curve_in_the_evidence_is_that_of_the_means_over_seeds():
    samples = seeds(power(-0.5), (-1e-3, -5e-4, 0.0, 5e-4, 1e-3))
    told = verdict(claim(high=-0.4, curve=True), samples).evidence
    assert "curve through the means: log a 1.1 (1.1 to 1.1), exponent −0.5 (−0.5 to −0.5), R² 1.0000" in told
    assert "curve" not in verdict(claim(high=-0.4), samples).evidence
    negative = seeds(lambda x: -1.0 if x == 2 else x)
    assert "no curve through the means" in verdict(claim(low=0.0, curve=True), negative).evidence


def test_x_is_a_quotient_of_two_keys():
    wide = {
        "model.width": {"r1": 4.0, "r2": 8.0, "r3": 12.0, "r4": 32.0},
        "model.depth": {"r1": 4.0, "r2": 2.0, "r3": 6.0, "r4": 4.0},
    }
    cells = frozenset((row, "a") for row in ROWS)
    where = Layout(ROWS, ("a",), cells, lambda place: None, 1, lambda place, key: wide[key][place[0]])
    ratio = {"r1": 1.0, "r2": 4.0, "r3": 2.0, "r4": 8.0}
    samples = {
        (row, "a"): {s: 3 * ratio[row] ** 0.5 * (1 + s) * ratio[row] ** (s * 1e-3) for s in range(5)} for row in ROWS
    }
    assert verdict(claim(x="model.width/model.depth", low=0.45, high=0.55), samples, where).verdict == "holds"


def test_monotone_in_the_order_of_the_axis():
    assert verdict(claim(direction="rising"), seeds(power(0.5))).verdict == "holds"
    assert verdict(claim(direction="falling"), seeds(power(0.5))).verdict == "fails"
    bump = seeds(lambda x: 100.0 if x == 4 else x)
    assert verdict(claim(direction="rising"), bump).verdict == "fails"


def test_one_curve_over_another():
    """A ratio that grows like sqrt(x), of curves that grow like x and sqrt(x)."""
    ratio = claim(over={"column": "b"}, low=0.4, high=0.6)
    samples = seeds(power(1.0), other=power(0.5))
    for seed, extra in enumerate((0.99, 0.995, 1.0, 1.005, 1.01)):
        samples["r4", "a"][seed] *= extra
    assert verdict(ratio, samples).verdict == "holds"
    assert verdict(claim(low=0.4, high=0.6), samples).verdict == "fails"


def test_each_line_by_itself_or_their_mean():
    samples = seeds(power(-0.9), other=power(-0.1))
    lines = {"of": {}, "low": -0.6, "high": -0.4}
    assert verdict(claim(**lines, combine="mean"), samples).verdict == "holds"
    assert verdict(claim(**lines), samples).verdict == "fails"


def test_too_few_places_are_not_run_and_numbers_without_logarithm_decide_nothing():
    assert verdict(claim(low=0.0, rows=["r1", "r2"]), seeds(power(1.0))).verdict == "not run"
    same = {"r1": 1.0, "r2": 1.0, "r3": 2.0, "r4": 2.0}
    assert verdict(claim(low=0.0), seeds(power(1.0)), layout(same)).verdict == "not run"
    negative = seeds(lambda x: -1.0 if x == 2 else x)
    assert verdict(claim(low=0.0), negative).verdict == "inconclusive"
    assert verdict(claim(law="linear", low=0.0), negative).verdict == "holds"
    short = seeds(power(1.0))
    del short["r1", "a"][4]  # a seed that one cell lacks
    assert verdict(claim(low=0.0), short).verdict == "inconclusive"


def test_what_a_fit_has_to_say():
    with pytest.raises(ConfigError, match="a fit needs low, high, r2 or direction"):
        claim()
    with pytest.raises(ConfigError, match="low 2 is above high 1"):
        claim(low=2, high=1)
    with pytest.raises(ConfigError, match=r"claim\.law=cubic"):
        claim(law="cubic", low=0)
    with pytest.raises(ConfigError, match=r"claim\.x=n"):
        claim(x="n", low=0)


def test_a_table_says_at_once_where_a_cell_has_no_number(configs: Path):
    path = configs / "paper" / "demo.yaml"
    plain = path.read_text()
    fit = "\n  - {kind: fit, text: grows, of: {column: srste}, along: rows, x: KEY, low: 0, tiers: [cpu]}\n"
    path.write_text(plain + fit.replace("KEY", "model.width").lstrip("\n"))
    with pytest.raises(
        ConfigError, match=r"claims\.C3 x=model\.width: 2:4 · srste does not set it to a number \(tier cpu\)"
    ):
        load("demo", configs)
    sized = plain.replace('["sparsity=2:4"]', '["sparsity=2:4", model.width=8]').replace(
        '["sparsity=1:4"]', '["sparsity=1:4", model.width=1.5]'
    )
    path.write_text(sized + fit.replace("KEY", "model.width").lstrip("\n"))
    (table,) = load("demo", configs)
    numbers = grid.layout(table, "cpu").numbers
    assert numbers(("2:4", "srste"), "model.width") == 8 and numbers(("1:4", "ste"), "model.width") == 1.5
    assert numbers(("dense", "dense"), "model.width") is None


def test_x_may_stand_inside_the_cell_that_a_value_names(configs: Path):
    path = configs / "paper" / "demo.yaml"
    plain = path.read_text()
    inside = "'model.weights={cell: {method: dense, model: mlp, trainer.keep_at: [1], optim.lr: 0.5}, at: 1}'"
    path.write_text(plain.replace('["sparsity=2:4"]', f'["sparsity=2:4", {inside}]'))
    (table,) = load("demo", configs)
    numbers = grid.layout(table, "cpu").numbers
    assert numbers(("2:4", "srste"), "model.weights.at") == 1
    assert numbers(("2:4", "srste"), "model.weights.cell.optim.lr") == 0.5
    assert numbers(("2:4", "srste"), "model.weights.cell.model") is None
    assert numbers(("1:4", "srste"), "model.weights.at") is None
