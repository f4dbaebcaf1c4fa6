"""Laws of one variable: their values, what a fit recovers, and its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import linregress, t

from sparselab.experiments.tables.laws import LAWS, curve_of, fit_law, offset_power, stretched

# Sparsing Law (arXiv 2411.02335), table 2: alpha, b, c, A0 of ReLU, alpha, c, A0 of SiLU; D in units of 1e9 tokens
RELU = {
    "0.1B": (1.01e-1, -1.51e-2, 3.20, 6.14e-2), "0.2B": (4.49e-1, -3.05, 2.86e-1, 6.74e-2),
    "0.4B": (6.83e-1, -3.46, 7.90e-2, 6.90e-2), "0.8B": (1.01, -3.49, 7.97e-3, 7.21e-2),
    "1.2B": (1.33, -3.89, 9.03e-4, 7.82e-2), "2.4B": (1.53, -3.46, 1.56e-4, 6.48e-2),
}  # fmt: skip
SILU = {
    "0.1B": (4.79e-1, 1.02e-1, 4.09e-1), "0.2B": (8.44e-1, 2.08e-1, 3.90e-1), "0.4B": (1.03, 4.20e-1, 3.85e-1),
    "0.8B": (9.95e-1, 5.62e-1, 3.83e-1), "1.2B": (9.67e-1, 5.38e-1, 3.82e-1),
}  # fmt: skip
TOKENS = np.geomspace(2.0, 300.0, 12)


@pytest.mark.parametrize(("size", "shares"), [("0.1B", (7.88, 6.74, 6.51)), ("1.2B", (9.83, 9.17, 8.33))])
def test_published_law_of_relu(size, shares):
    alpha, b, c, floor = RELU[size]
    for tokens, share in zip((10.0, 100.0, 250.0), shares, strict=True):
        assert 100 * stretched(tokens, floor, b, c, alpha) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(("size", "shares"), [("0.1B", (37.51, 39.78, 40.18)), ("1.2B", (32.40, 37.57, 37.94))])
def test_published_law_of_silu(size, shares):
    alpha, c, limit = SILU[size]
    for tokens, share in zip((10.0, 100.0, 250.0), shares, strict=True):
        assert 100 * offset_power(tokens, limit, -c, -alpha) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("size", RELU)
def test_the_published_coefficients_of_relu_are_recovered_from_noiseless_points(size):
    alpha, b, c, floor = RELU[size]
    found = fit_law("stretched", list(TOKENS), list(stretched(TOKENS, floor, b, c, alpha)))
    assert found.coefficients == pytest.approx({"c": floor, "b": b, "a": c, "exponent": alpha}, rel=1e-6)
    assert found.r2 == pytest.approx(1) and max(map(abs, found.residuals)) < 1e-12


@pytest.mark.parametrize("size", SILU)
def test_the_published_coefficients_of_silu_are_recovered_from_noiseless_points(size):
    alpha, c, limit = SILU[size]
    found = fit_law("offset_power", list(TOKENS), list(offset_power(TOKENS, limit, -c, -alpha)))
    assert found.coefficients == pytest.approx({"c": limit, "a": -c, "exponent": -alpha}, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "values"), [("stretched", (0.067, -3.05, 0.286, 0.449)), ("offset_power", (0.409, -0.102, -0.479))]
)
def test_a_fit_with_its_intervals_is_scipys(name, values):
    law = LAWS[name]
    y = law.at(TOKENS, *values) + 2e-4 * np.random.default_rng(0).normal(size=len(TOKENS))
    found = fit_law(name, list(TOKENS), list(y))
    theirs, covariance = curve_fit(law.at, TOKENS, y, values)
    assert list(found.coefficients.values()) == pytest.approx(list(theirs), rel=1e-4)
    reach = t.ppf(0.975, len(TOKENS) - len(values)) * np.sqrt(np.diag(covariance))
    half = [(high - low) / 2 for low, high in found.intervals.values()]
    assert half == pytest.approx(list(reach), rel=1e-3)
    assert found.residuals == pytest.approx(y - law.at(TOKENS, *theirs), abs=1e-8)


def test_a_lines_interval_is_linear_regressions():
    x, y = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.1, 4.3, 8.0, 15.0]
    found, theirs = fit_law("power", x, y), linregress(np.log(x), np.log(y))
    assert found.coefficients == pytest.approx({"log a": theirs.intercept, "exponent": theirs.slope})
    low, high = found.intervals["exponent"]
    assert (high - low) / 2 == pytest.approx(theirs.stderr * t.ppf(0.975, 3))


@pytest.mark.parametrize("name", LAWS)
def test_a_gradient_is_that_of_its_law(name):
    law = LAWS[name]
    x, values = np.geomspace(0.5, 8, 5), np.array([0.3, -1.1, 0.7, 0.6][: len(law.names)])
    for i, column in enumerate(law.gradient(x, *values).T):
        step = np.eye(len(values))[i] * 1e-6
        assert column == pytest.approx((law.at(x, *(values + step)) - law.at(x, *(values - step))) / 2e-6, abs=1e-8)


def test_points_without_a_fit_have_no_numbers():
    none = fit_law("power", [1.0, 2.0, 3.0], [1.0, -1.0, 2.0])
    assert math.isnan(none.r2) and not none.residuals and all(map(math.isnan, none.coefficients.values()))
    assert math.isnan(curve_of("exponential", [1.0, 2.0, 3.0], [1.0, 0.0, 2.0]).slope)
    exact = fit_law("offset_power", [1.0, 2.0, 4.0], [1.0, 2.0, 3.5])  # as many points as coefficients
    assert all(math.isnan(low) for low, _ in exact.intervals.values())
