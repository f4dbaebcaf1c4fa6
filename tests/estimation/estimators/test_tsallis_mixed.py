"""The stand-in of part 3: index and degrees of freedom, likelihood, descent, robustness, and scikit-learn's checks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.heavy_tails.conjugate import Composite, descend
from sparselab.estimation.estimators.heavy_tails.learner import TsallisMixedRegressor
from sparselab.estimation.estimators.heavy_tails.likelihood import Grouped, Likelihood
from sparselab.estimation.estimators.heavy_tails.tsallis import degrees, index


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def grouped(rng, m=8, p=3):
    """(A, y, Z, groups, rows) with a random intercept and slope."""
    groups = np.repeat(np.arange(m), rng.integers(2, 6, m))
    X = rng.normal(size=(len(groups), p))
    A, Z = np.column_stack([np.ones(len(X)), X]), np.column_stack([np.ones(len(X)), X[:, 0]])
    y = X @ np.arange(1, p + 1) + rng.normal(size=m)[groups] + rng.normal(size=len(X))
    order = rng.permutation(len(X))
    return A[order], y[order], Z[order], groups[order]


def test_degrees_of_freedom():
    """The dossier's item: q = 1.5 in one dimension is a t with nu = 3; q = 1 is Gaussian; marginals keep nu."""
    assert degrees(1.5) == 3 and degrees(1) == math.inf
    assert degrees(1.5, 2) == 2 and degrees(index(3.0, 7), 7) == pytest.approx(3)
    for q, m in ((0.9, 1), (3.0, 1), (2.0, 2)):
        with pytest.raises(ValueError, match="write a number from 1"):
            degrees(q, m)


def test_the_q_gaussian_of_that_index_is_that_t():
    """[1 + (q - 1) b x²]^(-1 / (q - 1)) is proportional to the density of a t with 2 / (q - 1) - 1 degrees of freedom."""
    q, x = 1.4, np.linspace(-5, 5, 11)
    nu = degrees(q)
    ours = (1 + (q - 1) * x**2 / (nu * (q - 1))) ** (-1 / (q - 1))  # b = 1 / (nu (q - 1)) gives scale 1
    theirs = multivariate_t(df=nu).pdf(x)
    assert ours / ours[5] == pytest.approx(theirs / theirs[5], rel=1e-12)


@pytest.mark.parametrize("nu", [math.inf, 3.0])
def test_the_likelihood_is_scipy_s_group_by_group_and_its_gradient_numerical(nu, rng):
    A, y, Z, groups = grouped(rng)
    likelihood = Likelihood(Grouped.of(A, y, Z, groups), nu)
    theta = np.array([0.2, 1.0, 1.5, 2.5, 0.3, -0.4, 0.5])
    sigma2, G = math.exp(0.6), np.diag(np.exp(theta[5:]))
    total = 0.0
    for g in range(8):
        at = groups == g
        scatter = sigma2 * (np.eye(at.sum()) + Z[at] @ G @ Z[at].T)
        mean = A[at] @ theta[:4]
        law = multivariate_normal(mean, scatter) if math.isinf(nu) else multivariate_t(mean, scatter, df=nu)
        total -= law.logpdf(y[at])
    value, gradient = likelihood.value_and_gradient(theta)
    assert value == pytest.approx(total / len(y), rel=1e-10)
    numeric = approx_fprime(theta, lambda t: likelihood.value_and_gradient(t)[0], 1e-7)
    assert gradient == pytest.approx(numeric, abs=1e-5)
    effects = likelihood.effects(theta)
    at = np.flatnonzero(groups == 2)
    V = np.eye(len(at)) + Z[at] @ G @ Z[at].T
    assert effects[2] == pytest.approx(G @ Z[at].T @ np.linalg.solve(V, y[at] - A[at] @ theta[:4]))


@pytest.mark.parametrize("conjugate", [True, False])
def test_both_descents_fall_to_the_minimum_of_a_lasso(conjugate, rng):
    A = rng.normal(size=(30, 8)) * np.geomspace(1, 10, 8)
    b = A @ np.array([1.0, 0, 0, 0.3, 0, 0, 0.1, 0]) + 0.1 * rng.normal(size=30)
    problem = Composite(
        lambda t: (float(((A @ t - b) ** 2).mean() / 2), A.T @ (A @ t - b) / 30),
        lambda t: 0.05 * float(np.abs(t).sum()),
        lambda t, step: np.sign(t) * np.maximum(np.abs(t) - 0.05 * step, 0),
    )
    found = descend(problem, np.zeros(8), 1e-6, 20_000, conjugate)
    gradient = A.T @ (A @ found.theta - b) / 30
    off = np.where(found.theta != 0, np.abs(gradient + 0.05 * np.sign(found.theta)), np.abs(gradient) - 0.05)
    assert found.converged and off.max() < 1e-5 and np.diff(found.values).max() <= 0


def test_the_second_direction_is_polak_and_ribiere_s():
    """On a quadratic: d_1 = -g_1 + max(0, g_1 (g_1 - g_0) / g_0 g_0) d_0, d_0 = -g_0; proximal gradient has d_1 = -g_1."""
    H, start = np.diag([1.0, 6.0]), np.array([3.0, 1.0])
    problem = Composite(lambda t: (float(t @ H @ t / 2), H @ t), lambda t: 0.0, lambda t, step: t)
    for conjugate in (True, False):
        one, two = (descend(problem, start, 1e-9, most, conjugate).theta for most in (1, 2))
        g0, g1 = H @ start, H @ one
        push = g1 @ (g1 - g0) / (g0 @ g0)
        d = -g1 - push * g0 if conjugate else -g1
        assert push > 0 and d @ (two - one) == pytest.approx(np.linalg.norm(d) * np.linalg.norm(two - one))


def test_conjugate_directions_need_fewer_steps(rng):
    A, y, _, groups = grouped(rng, m=20)
    X = A[:, 1:]
    one, two = (
        TsallisMixedRegressor(1.3, lam=0.01, solver=solver, tol=1e-4, max_iter=2000).fit(X, y, groups=groups)
        for solver in ("prox_ncg", "prox")
    )
    assert one.n_iter_ < two.n_iter_ and one.objective_ == pytest.approx(two.objective_, abs=1e-4)


def test_outliers_hurt_the_gaussian_more(rng):
    A, y, _, groups = grouped(rng, m=25)
    X = A[:, 1:]
    far = y + 30 * rng.normal(size=len(y)) * (rng.random(len(y)) < 0.1)
    off = {}
    for q in (1.0, 1.5):
        fitted = TsallisMixedRegressor(q, "l1", lam=0.001, tol=1e-4).fit(X, far, groups=groups)
        off[q] = np.linalg.norm(fitted.coef_ - [1, 2, 3])
    assert off[1.5] < 0.6 < off[1.0] and TsallisMixedRegressor.standin


def test_scales_are_in_units_of_y(rng):
    """Intercepts of standard deviation 2 and normal noise of 0.5; thousand times y has thousand times both."""
    groups = np.repeat(np.arange(60), 4)
    X = rng.normal(size=(240, 2))
    y = X[:, 0] + 2 * rng.normal(size=60)[groups] + 0.5 * rng.normal(size=240)
    one, milli = (TsallisMixedRegressor(1.0, lam=0.01, tol=1e-3).fit(X, unit * y, groups=groups) for unit in (1, 1000))
    assert one.sigma_ == pytest.approx(0.5, rel=0.15) and one.random_scale_ == pytest.approx(2, rel=0.25)
    for name in ("sigma_", "random_scale_", "random_effects_", "coef_", "intercept_"):
        small, large = np.asarray(getattr(one, name)), np.asarray(getattr(milli, name))
        assert np.abs(large / 1000 - small).max() <= 1e-4 * np.abs(small).max()


def test_bic_leaves_noise_alone(rng):
    X, y = rng.normal(size=(100, 6)), rng.normal(size=100)
    fitted = TsallisMixedRegressor(1.0, "l1", lam=None, n_lams=3, tol=1e-3).fit(X, y)
    small = TsallisMixedRegressor(1.0, "l1", lam=fitted.lam_ / 100, tol=1e-3).fit(X, y)
    assert not fitted.coef_.any() and (small.coef_ != 0).all()


def test_bic_chooses_a_sparse_model_and_groups_may_have_any_names(rng):
    A, y, _, groups = grouped(rng, m=20)
    X = np.column_stack([A[:, 1:], rng.normal(size=(len(y), 10))])
    names = np.array([f"g{g}" for g in groups])
    fitted = TsallisMixedRegressor(1.3, lam=None, n_lams=6, tol=1e-4).fit(X, y, groups=names)
    assert fitted.coef_ == pytest.approx([1, 2, 3, *np.zeros(10)], abs=0.4) and (fitted.coef_ == 0).any()
    assert fitted.random_effects_.shape == (20, 1) and fitted.random_scale_.shape == (1,)
    again = TsallisMixedRegressor(1.3, lam=fitted.lam_, tol=1e-4, slopes=(0,)).fit(X, y, groups=names)
    assert again.random_effects_.shape == (20, 2)


@pytest.mark.parametrize(
    "estimator",
    [
        TsallisMixedRegressor(),
        pytest.param(TsallisMixedRegressor(1.0, solver="prox"), marks=pytest.mark.slow),  # eleven seconds each
    ],
    ids=repr,
)
def test_scikit_learn_accepts_it(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"q": 3.0}, {}, "q=3.0: write a number of at least 1 and below 3"),
        ({"solver": "em"}, {}, "one of prox_ncg, prox"),
        ({"lam": -1}, {}, "lam=-1: write a number of at least 0"),
        ({"slopes": (0,)}, {}, "random slopes need groups"),
        ({}, {"groups": [1, 2]}, "groups has 2 entries, and X has"),
        ({"slopes": (9,)}, {"groups": None}, "random slopes need groups"),
        ({"slopes": (9,)}, {"groups": np.zeros}, r"slopes=\(9,\): X has columns 0 to 2; list some of those"),
        ({"slopes": (0.5,)}, {"groups": np.zeros}, "X has columns 0 to 2; list some of those"),
        ({"slopes": ("age",)}, {"groups": np.zeros}, "X has columns 0 to 2; list some of those"),
        ({"slopes": 0}, {"groups": np.zeros}, "slopes=0: X has columns 0 to 2; list some of those"),
        ({}, {"groups": lambda n: np.full(n, math.nan)}, "groups contains NaN"),
    ],
)
def test_bad_options_are_one_line(options, data, message, rng):
    A, y, _, _ = grouped(rng)
    data = {name: value(len(y)) if callable(value) else value for name, value in data.items()}
    with pytest.raises(ValueError, match=message) as error:
        TsallisMixedRegressor(**options).fit(A[:, 1:], y, **data)
    assert "\n" not in str(error.value)
