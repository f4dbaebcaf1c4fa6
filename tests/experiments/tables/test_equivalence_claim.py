"""Claims that two cells are the same: two one-sided tests, under the rule that all claims are judged by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from test_claims import A, B, claim, layout, spread, verdict

from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.statistics import Estimate, sign_flip


def paired(differences, base=90.0):
    """Samples of r1 in which a - b has these values by seed."""
    samples = spread({})
    noise = np.random.default_rng(0).normal(0, 3, len(differences))
    samples["r1", "b"] = dict(enumerate((base + noise).tolist()))
    samples["r1", "a"] = {seed: samples["r1", "b"][seed] + d for seed, d in enumerate(differences)}
    return samples


def test_it_holds_where_the_interval_lies_within_the_margin_and_fails_where_it_lies_outside():
    same = claim("equivalence", a=A, b=B, margin=0.5)
    assert verdict(same, paired([0.1, -0.1, 0.05, 0.0, -0.05])).verdict == "holds"
    assert verdict(same, paired([0.9, 1.1, 1.0, 0.95, 1.05])).verdict == "fails"
    assert verdict(same, paired([-0.9, -1.1, -1.0, -0.95, -1.05])).verdict == "fails"
    assert verdict(same, paired([1.0, -1.0, 0.5, -0.5, 0.0])).verdict == "inconclusive", (
        "not found is not the same as equal"
    )
    assert verdict(same, paired([0.1, -0.1, 0.0])).verdict == "inconclusive", "three seeds are too few"


def test_its_p_values_are_those_of_two_one_sided_t_tests():
    differences = [0.3, -0.2, 0.4, 0.1, 0.2]
    found = verdict(claim("equivalence", a=A, b=B, margin=0.5), paired(differences))
    upper = stats.ttest_1samp(differences, 0.5, alternative="less").pvalue
    lower = stats.ttest_1samp(differences, -0.5, alternative="greater").pvalue
    assert found.p_holds == pytest.approx(max(upper, lower), rel=1e-6)
    beyond = stats.ttest_1samp(differences, 0.5, alternative="greater").pvalue
    assert found.p_fails == pytest.approx(min(1.0, 2 * beyond), rel=1e-6)


def test_the_evidence_has_the_interval_and_the_test_of_no_difference():
    differences = [0.3, -0.2, 0.4, 0.1, 0.2]
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(5)
    reach = stats.t.ppf(0.95, 4) * error
    evidence = verdict(claim("equivalence", a=A, b=B, margin=0.5), paired(differences)).evidence
    assert (
        f"90 % interval of (r1 a) − (r1 b) {mean - reach:+.2f}".replace("-", "−").replace("(r1 a)", "r1 a")[:22]
        in evidence
    )
    assert f"{mean + reach:+.2f}" in evidence and f"sign flips p = {sign_flip(differences):.3f}" in evidence
    low, high = Estimate(float(mean), float(np.std(differences, ddof=1)), 5).interval(0.05)
    assert (low, high) == pytest.approx((mean - reach, mean + reach))


def test_a_relative_margin_is_a_fraction_of_b():
    same = claim("equivalence", a=A, b=B, margin=0.05, relative=True)
    assert verdict(same, paired([1.0, -1.0, 0.5, 0.0, -0.5], base=100.0)).verdict == "holds"
    assert verdict(same, paired([9.0, 10.0, 11.0, 9.5, 10.5], base=100.0)).verdict == "fails"
    assert verdict(same, paired([-9.0, -10.0, -11.0, -9.5, -10.5], base=100.0)).verdict == "fails"


def test_each_row_is_asked_for_itself():
    rows = claim("equivalence", a={"column": "a"}, b={"column": "b"}, rows=["r1", "r2"], margin=5.0)
    assert len(rows.bounds(layout())) == 4 and len(rows.compared(layout())) == 2
    assert verdict(rows, spread({("r2", "a"): 20.0})).verdict == "fails"
    mean = claim("equivalence", a={"column": "a"}, b={"column": "b"}, rows=["r1", "r2"], margin=5.0, combine="mean")
    assert verdict(mean, spread({("r1", "a"): -20.0, ("r2", "a"): 20.0})).verdict == "fails", (
        "opposite misses do not cancel"
    )


@pytest.mark.parametrize(
    "options, message", [({"margin": 0}, "greater than 0"), ({"margin": 2, "relative": True}, "no fraction")]
)
def test_what_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        claim("equivalence", a=A, b=B, **options)


def test_sign_flips_by_hand():
    """Item 6: [0, 0, 0] gives 1, five differences of one sign 2 / 32."""
    assert sign_flip([0.0, 0.0, 0.0]) == 1
    assert sign_flip([0.1, 0.2, 0.3, 0.4, 0.5]) == sign_flip([-1.0] * 5) == 2 / 32
    assert sign_flip([1.0, 2.0, -3.0]) == 1
    assert (
        sign_flip([1.0, 2.0, 4.0, -1.0])
        == sum(abs(a + 2 * b + 4 * c + d) >= 6 for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)) / 16
    )
    many = np.random.default_rng(1).normal(0.3, 1, 40)
    assert sign_flip(list(many)) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, rel=1e-6)
