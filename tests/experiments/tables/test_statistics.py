from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselab.experiments.tables.statistics import Estimate, Spread, error_by_seed, estimate, holm, pooled, spreads


def test_pooled_variance_by_hand():
    # squared deviations 2 + 8 over 2 + 1 degrees of freedom; a single value says nothing
    assert pooled([[1.0, 2.0, 3.0], [0.0, 4.0], [7.0]]) == Spread(10 / 3, 3)
    assert pooled([[1.0]]).df == 0


def test_a_contrast_by_hand():
    samples = {("r", "a"): [3.0, 5.0], ("r", "b"): [1.0, 2.0, 3.0]}
    found = estimate({("r", "a"): 1, ("r", "b"): -2}, samples, dict.fromkeys(samples, Spread(6.0, 3)))
    assert found.value == 4 - 2 * 2
    assert found.error == pytest.approx(math.sqrt(6 * (1 / 2 + 4 / 3))) and found.df == 3


def test_what_seeds_share_drops_out_of_a_paired_error():
    """Seeds are 10, 20 and 30 points apart in both cells, and differ by 1, 2 and 3: a sample sd of 1."""
    samples = {("r", "a"): [11.0, 22.0, 33.0], ("r", "b"): [10.0, 20.0, 30.0]}
    difference = {("r", "a"): 1.0, ("r", "b"): -1.0}
    assert error_by_seed(difference, samples, 3) == pytest.approx(1 / math.sqrt(3))
    assert error_by_seed({("r", "a"): 1.0}, samples, 3) is None
    assert error_by_seed(difference, samples, 4) is None
    assert error_by_seed(difference, samples | {("r", "b"): [10.0, 20.0]}, 3) is None


def test_columns_may_have_spreads_of_their_own():
    """Two columns of one row: Welch's t test (1947); rows of one column: the pooled one. A noisy column harms no other."""
    samples = {
        ("r", "a"): [3.0, 5.0, 4.0],
        ("r", "b"): [1.0, 9.0, 2.0],
        ("q", "a"): [1.0, 2.0, 3.0],
        ("q", "b"): [0.0, 50, 7],
    }
    spread = spreads(samples, lambda place: place[1])
    assert spread["r", "a"] == spread["q", "a"] == pooled([samples["r", "a"], samples["q", "a"]])
    same = estimate({("r", "a"): 1, ("q", "a"): -1}, samples, spread)
    assert (same.value, same.error, same.df) == (2.0, pytest.approx(math.sqrt(2 / 3)), 4)

    from scipy.stats import ttest_ind

    only = {place: values for place, values in samples.items() if place[0] == "r"}
    found = estimate({("r", "a"): 1, ("r", "b"): -1}, only, spreads(only, lambda place: place[1]))
    welch = ttest_ind(only["r", "a"], only["r", "b"], equal_var=False)
    assert found.value / found.error == pytest.approx(welch.statistic) and found.df == pytest.approx(welch.df)
    assert found.p_above(0) == pytest.approx(1 - welch.pvalue / 2 if welch.statistic < 0 else welch.pvalue / 2)


def test_a_group_of_single_values_says_nothing():
    samples = {("r", "a"): [1.0, 2.0], ("r", "b"): [0.0]}
    found = estimate({("r", "a"): 1, ("r", "b"): -1}, samples, spreads(samples, lambda place: place[1]))
    assert found.df == 0 and found.p_above(0) == found.p_below(0) == 1.0


def test_t_quantiles_from_a_book():
    # one-sided 5 % points of t: 2.132 at 4, 1.725 at 20 degrees of freedom
    assert Estimate(2.132, 1.0, 4).p_above(0) == pytest.approx(0.05, abs=1e-4)
    assert Estimate(-1.725, 1.0, 20).p_below(0) == pytest.approx(0.05, abs=1e-4)
    assert Estimate(3.0, 1.0, 4).p_above(3.0) == 0.5


def test_without_spread_or_degrees_of_freedom():
    assert Estimate(1.0, 0.0, 4).p_above(0) == 0.0
    assert Estimate(1.0, 0.0, 4).p_below(0) == 1.0
    assert Estimate(0.0, 0.0, 4).p_above(0) == 1.0
    assert Estimate(1.0, math.nan, 0).p_above(0) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(ps: list[float]):
    adjusted = holm(ps)
    assert all(a >= p for a, p in zip(adjusted, ps, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)
