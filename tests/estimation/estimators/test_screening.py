"""Screening by mutual information: the dossier's exact values, densities, the published fault, and scikit-learn's checks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from bad_data import refused_in_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.information import density, information
from sparselab.estimation.estimators.information.screened import PENALTIES, ScreenedRidgeRegressor
from sparselab.estimation.estimators.information.selector import ESTIMATORS, MIScreen


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def made(rng, n=300, p=6):
    """(X, y): y is x0 + x1² and noise."""
    X = rng.normal(size=(n, p))
    return X, X[:, 0] + X[:, 1] ** 2 + 0.3 * rng.normal(size=n)


# -- mutual information ------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_an_independent_joint_has_none_and_arguments_may_be_swapped(a, b, seed):
    """The dossier's items: a product has 0; swapping the arguments changes nothing."""
    rng = np.random.default_rng(seed)
    product = np.outer(rng.dirichlet(np.ones(a)), rng.dirichlet(np.ones(b)))
    assert information.of_joint(product) == pytest.approx(0, abs=1e-12)
    joint = rng.dirichlet(np.ones(a * b)).reshape(a, b)
    assert information.of_joint(joint) == pytest.approx(information.of_joint(joint.T), abs=1e-12)
    assert information.of_joint(joint / 0.02, 0.1, 0.2) == pytest.approx(information.of_joint(joint), abs=1e-12)


def test_a_diagonal_of_two_has_log_two():
    """The dossier's item."""
    assert information.of_joint(np.eye(2) / 2) == pytest.approx(np.log(2), abs=1e-15)


def test_a_gaussian_density_has_its_closed_form():
    """The dossier's item: -0.5 log(1 - rho²), of the density itself on a grid, and roughly of samples."""
    rho, grid = 0.8, np.linspace(-7, 7, 701)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    joint = np.exp(-(x**2 - 2 * rho * x * y + y**2) / 2 / (1 - rho**2)) / 2 / np.pi / np.sqrt(1 - rho**2)
    exact = -0.5 * np.log(1 - rho**2)
    assert information.of_joint(joint, 0.02, 0.02) == pytest.approx(exact, abs=1e-6)
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000)
    b = rho * a + np.sqrt(1 - rho**2) * rng.normal(size=2000)
    assert information.kernel_information(a, b, 200, "silverman") == pytest.approx(exact, abs=0.1)
    assert information.binned_information(a, b) == pytest.approx(exact, abs=0.1)


def test_swapping_samples_changes_nothing(rng):
    """The dossier's item, for both estimators of continuous variables."""
    a, b = rng.normal(size=(2, 80))
    b = b + a**2
    for one in (lambda x, y: information.kernel_information(x, y, 64, 0.5), information.binned_information):
        assert one(a, b) == pytest.approx(one(b, a), abs=1e-12)


def test_units_and_signs_change_nothing(rng):
    a = rng.normal(size=80)
    b = a + rng.normal(size=80)
    for bw in (0.7, "silverman", "scott", "isj"):
        found = information.kernel_information(a, b, 64, bw)
        assert information.kernel_information(-30 * a + 5, b, 64, bw) == pytest.approx(found, rel=1e-6)


# -- densities ---------------------------------------------------------------------------------------------------------


def test_a_density_is_the_sum_of_its_kernels(rng):
    """On the grid's own points, where linear binning is exact: Epanechnikov with standard deviation bw, in 1-D and 2-D."""
    grid = np.linspace(-5, 5, 101)
    x, y = grid[[40, 55, 61]], grid[[30, 50, 70]]
    r = (grid[:, None] - x) / (density.REACH * 0.6)
    expected = (np.maximum(1 - r**2, 0) * 0.75 / (density.REACH * 0.6)).mean(1)
    assert density.density(x, grid, 0.6) == pytest.approx(expected, abs=1e-12)
    s = (grid[:, None] - y) / (density.REACH * 0.6)
    joint = np.maximum(1 - r[:, None] ** 2 - s**2, 0) * 2 / np.pi / (density.REACH * 0.6) ** 2
    assert density.joint_density(x, y, grid, grid, 0.6) == pytest.approx(joint.mean(2), abs=1e-12)


def test_a_density_integrates_to_one_and_resembles_another_library_s(rng):
    x = rng.normal(size=500)
    grid = density.axis(x, 0.3, 500)
    found = density.density(x, grid, 0.3)
    assert found.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=2e-3)
    assert found == pytest.approx(gaussian_kde(x, 0.3 / x.std(ddof=1))(grid), abs=0.03)


def test_bandwidths_of_a_normal_sample(rng):
    x = rng.normal(size=2000)
    assert density.silverman(x) == pytest.approx((0.75 * 2000) ** -0.2, rel=0.05)
    assert density.scott(x) == pytest.approx(2000**-0.2, rel=0.05)
    assert density.isj(x) == pytest.approx(1.06 * 2000**-0.2, rel=0.3)
    assert density.bandwidth(np.zeros(9), "silverman") == 1.0 and density.bandwidth(x, 0.4) == 0.4


def test_bins_by_hand_and_of_a_uniform_sample(rng):
    """Four values in two clumps: the penalised likelihood is largest at 2 bins."""
    assert information.bins(np.array([0.0, 0.1, 0.9, 1.0])) == 2
    assert information.bins(rng.random(5000)) < 5 < information.bins(rng.normal(size=5000))
    x = rng.normal(size=700)
    counts = np.arange(2, 100)
    values = []
    for count in counts:  # sum N log N + N log D - (D - 1 + (log D)^2.5)
        full = np.histogram(x, bins=count)[0]
        full = full[full > 0]
        values.append((full * np.log(full)).sum() + 700 * np.log(count) - (count - 1 + np.log(count) ** 2.5))
    assert information.bins(x) == counts[np.argmax(values)]
    gentler = np.array(values) + np.log(counts) ** 2.5 - np.log(counts) ** 2
    assert counts[np.argmax(gentler)] != information.bins(x)  # the power of the logarithm decides here


# -- screening ---------------------------------------------------------------------------------------------------------


def test_kernel_information_finds_what_correlation_does_not(rng):
    X, y = made(rng)
    assert set(MIScreen(keep=2, grid=100).fit(X, y).kept_) == {0, 1}
    pearson = MIScreen("pearson", keep=2).fit(X, y)
    assert pearson.scores_[0] == pytest.approx(abs(np.corrcoef(X[:, 0], y)[0, 1])) and pearson.kept_[0] == 0


def test_the_published_indexing_fault_is_what_it_says_and_off(rng):
    """The dossier's defect: each class's column holds the first value of its density, at the edge of the grid, throughout."""
    X, y = made(rng)
    labels = (y > np.median(y)).astype(int)
    z = (X[:, 0] - X[:, 0].mean()) / X[:, 0].std()
    grid = density.axis(z, density.silverman(z), 200)
    first = [
        (labels == k).mean() * density.density(own, grid, density.silverman(own))[0]
        for k in (0, 1)
        for own in [z[labels == k]]
    ]
    expected = information.of_joint(np.tile(first, (200, 1)), float(grid[1] - grid[0]))
    wrong = MIScreen(bw="silverman", grid=200, indexing="repo").fit(X, labels)
    right = MIScreen(bw="silverman", grid=200).fit(X, labels)
    assert wrong.scores_[0] == pytest.approx(expected, abs=1e-12) and right.scores_[0] > 0.1
    assert right.discrete_ and right.indexing == "correct" and right.kept_[0] in (0, 1)


def test_clumping_drops_the_twin_of_a_better_column(rng):
    X, y = made(rng)
    X = np.column_stack([X, X[:, 0] + 0.01 * rng.normal(size=300)])
    kept = MIScreen("pearson", keep=3).fit(X, y).kept_
    apart = MIScreen("pearson", keep=3, clump=0.9).fit(X, y).kept_
    assert {0, 6} <= set(kept) and len({0, 6} & set(apart)) == 1 and len(apart) == 3
    assert 6 in MIScreen("binned", keep=3).fit(X, y).kept_ or 0 in MIScreen("binned", keep=3).fit(X, y).kept_


def test_classes_may_have_any_names_and_constant_columns_score_nothing(rng):
    X, y = made(rng)
    X[:, 3] = 7.0
    names = np.where(y > 1, "yes", "no")
    for estimator in ESTIMATORS:
        one = MIScreen(estimator, grid=64, random_state=0).fit(X, names)
        two = MIScreen(estimator, grid=64, random_state=0).fit(X, y > 1)
        assert one.scores_ == pytest.approx(two.scores_) and one.scores_[3] == 0 and isinstance(one, SelectorMixin)
    three = rng.integers(0, 3, 300)  # two values are classes, three may be counts
    assert (
        not MIScreen("pearson").fit(X, three).discrete_
        and MIScreen(grid=32, outcome="discrete").fit(X, three).discrete_
    )


def test_ridge_on_what_is_kept(rng):
    X, y = made(rng, p=40)
    fitted = ScreenedRidgeRegressor(MIScreen("pearson", keep=3)).fit(X, y)
    assert (fitted.coef_ != 0).sum() == 3 and fitted.coef_[0] == pytest.approx(1, abs=0.3)
    kept = np.column_stack([np.ones(300), X[:, np.sort(fitted.screener_.kept_)]])
    errors = []
    for alpha in PENALTIES:  # leave one out, by the diagonal of the hat matrix; the intercept is free
        hat = kept @ np.linalg.solve(kept.T @ kept + alpha * np.diag([0.0, 1, 1, 1]), kept.T)
        errors.append((((y - hat @ y) / (1 - np.diag(hat))) ** 2).mean())
    assert fitted.alpha_ == PENALTIES[np.argmin(errors)]


@pytest.mark.parametrize(
    "estimator",
    [MIScreen(name, keep=2, grid=32, random_state=0) for name in ESTIMATORS]
    + [
        MIScreen(clump=0.1, grid=32),
        ScreenedRidgeRegressor(MIScreen("pearson")),
    ],
    ids=repr,
)
def test_scikit_learn_accepts_it(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "mic"}, "one of fftkde, binned, sklearn, pearson"),
        ({"keep": 0}, "keep=0: write a whole number of at least 1"),
        ({"grid": 8}, "grid=8: write a whole number of at least 16"),
        ({"bw": "wide"}, "bw='wide': one of silverman, scott, isj"),
        ({"bw": 0.0}, "bw=0.0: write a number above 0"),
        ({"clump": 0}, "clump=0: write a number above 0"),
        ({"indexing": "yes"}, "one of correct, repo"),
    ],
)
def test_bad_options_are_one_line(options, message, rng):
    with pytest.raises(ValueError, match=message):
        MIScreen(**options).fit(*made(rng))


def test_bad_data_are_one_line(rng):
    X, y = made(rng)
    more = [((X, None), (ValueError, TypeError), "."), ((X, np.ones(300)), ValueError, ".")]
    refused_in_one_line(MIScreen(), X, y, more)
    names = np.where(y > 1, "yes", "no")
    with pytest.raises(ValueError, match="could not convert string to float") as error:
        ScreenedRidgeRegressor().fit(X, names)
    assert "\n" not in str(error.value)
    assert (MIScreen(grid=32).fit(X * 1e-170, y).scores_ == 0).all()  # no spread that floating point could square
