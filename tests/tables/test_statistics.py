from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselab.tables.statistics import (
    Estimate,
    estimate,
    holm,
    power_of,
    resolution,
    seeds_for,
    shared_seeds,
)

A, B = ("r", "a"), ("r", "b")


def test_a_contrast_by_hand():
    """Differences of 1, 2 and 3 though seeds are 10 points apart: a sample sd of 1, an error of 1 / sqrt(3)."""
    samples = {A: {0: 11.0, 1: 22.0, 2: 33.0}, B: {0: 10.0, 1: 20.0, 2: 30.0}}
    found = estimate({A: 1, B: -1}, samples, [0, 1, 2])
    assert (found.value, found.sd, found.seeds) == (2.0, 1.0, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))


def test_it_is_scipys_paired_test():
    from scipy.stats import ttest_rel

    a, b = [3.0, 5.5, 4.0, 9.0, 1.0], [1.0, 6.0, 2.0, 5.0, 0.5]
    samples = {A: dict(enumerate(a)), B: dict(enumerate(b))}
    found = estimate({A: 1, B: -1}, samples, range(5))
    assert found.p_above(0) == pytest.approx(ttest_rel(a, b, alternative="greater").pvalue)
    assert found.p_below(0) == pytest.approx(ttest_rel(a, b, alternative="less").pvalue)


def test_seeds_are_matched_by_their_number_and_incomplete_ones_left_out():
    samples = {A: {0: 1.0, 2: 3.0, 5: 9.0}, B: {5: 4.0, 2: 1.0, 7: 0.0}}
    assert shared_seeds([A, B], samples) == [2, 5]
    assert estimate({A: 1, B: -1}, samples, [2, 5]).value == 3.5
    assert shared_seeds([], samples) == [] and shared_seeds([A, ("r", "c")], samples) == []


def test_a_spread_below_the_resolution_is_floored():
    """Five equal values of accuracy in steps of 0.02: rounding alone leaves 0.02 / sqrt(12), of a difference sqrt(2) times."""
    samples = {A: dict.fromkeys(range(5), 95.0), B: dict.fromkeys(range(5), 94.98)}
    assert estimate({A: 1}, samples, range(5), 0.02).sd == pytest.approx(0.02 / math.sqrt(12))
    difference = estimate({A: 1, B: -1}, samples, range(5), 0.02)
    assert difference.sd == pytest.approx(0.02 / math.sqrt(6))
    assert 0 < difference.p_above(0) < 0.05
    assert estimate({A: 1, B: -1}, samples, range(5)).p_above(0) == 1.0  # no spread and no floor: nothing is known
    wide = {A: dict(enumerate([1.0, 2.0, 3.0])), B: dict(enumerate([0.0, 0.0, 0.0]))}
    assert estimate({A: 1, B: -1}, wide, range(3), 0.02).sd == 1.0


def test_the_resolution_is_the_smallest_step_seen():
    counts = {A: {0: 0.25, 1: 0.5}, B: {0: 0.75, 1: 0.5 + 1e-16}}
    assert resolution(counts, 2) == pytest.approx(0.25)
    assert resolution({A: {0: 0.0, 1: 0.0}}, 2) == 0.01  # a single value has no step: the last printed digit


def test_t_quantiles_from_a_book():
    # one-sided 5 % points of t: 2.132 at 4, 1.725 at 20 degrees of freedom
    assert Estimate(2.132, math.sqrt(5), 5).p_above(0) == pytest.approx(0.05, abs=1e-4)
    assert Estimate(-1.725, math.sqrt(21), 21).p_below(0) == pytest.approx(0.05, abs=1e-4)
    assert Estimate(3.0, 1.0, 5).p_above(3.0) == 0.5


def test_one_seed_says_nothing():
    found = estimate({A: 1}, {A: {0: 7.0}}, [0])
    assert found.value == 7.0 and math.isnan(found.error) and found.p_above(0) == found.p_below(0) == 1.0


def test_power_and_seeds_against_tables():
    """A paired effect of half a standard deviation at 5 %, one-sided, takes 36 pairs for 90 % (Machin et al. 2018: 35.6)."""
    assert seeds_for(0.5, 0.05, 0.9) == 36
    assert power_of(0.5, 0.05, 36) >= 0.9 > power_of(0.5, 0.05, 35)
    assert power_of(1e-9, 0.05, 10) == pytest.approx(0.05, abs=1e-3)
    assert power_of(1000.0, 0.001, 10) == pytest.approx(1.0)
    assert seeds_for(0.01, 0.05, 0.9) is None and seeds_for(-1.0, 0.05, 0.9) is None


def test_power_is_that_of_a_simulation():
    import numpy as np
    from scipy.stats import ttest_1samp

    draws = np.random.default_rng(3).normal(1.2, 1.0, (4000, 8))
    found = (ttest_1samp(draws, 0, axis=1, alternative="greater").pvalue <= 0.01).mean()
    assert power_of(1.2, 0.01, 8) == pytest.approx(found, abs=0.025)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(ps: list[float]):
    adjusted = holm(ps)
    assert all(a >= p for a, p in zip(adjusted, ps, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)
