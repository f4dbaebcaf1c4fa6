"""SCAD and MCP: the dossier's exact values, the step rules, stationarity, strong rules, and scikit-learn's own checks."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from bad_data import refused_in_one_line
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.concave import path as paths
from sparselab.estimation.estimators.concave.descent import SOLVERS, Objective, descend, original, proposed
from sparselab.estimation.estimators.concave.learner import NonconvexClassifier, NonconvexRegressor, standardised
from sparselab.estimation.estimators.concave.losses import LOSSES
from sparselab.estimation.estimators.concave.penalties import MCP, PENALTIES, SCAD, penalty_of
from sparselab.estimation.estimators.concave.race import race

EVERY = [*PENALTIES]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def made(rng, n=60, p=30, noise=0.5):
    """(X, y) with four columns that count."""
    X = rng.normal(size=(n, p))
    return X, X[:, :4] @ np.array([3.0, -2.0, 1.5, 1.0]) + noise * rng.normal(size=n) + 2.0


def objective(rng, penalty="scad", lam=0.3, model="linear", **sizes):
    X, y = made(rng, **sizes)
    y = y if model == "linear" else (y > y.mean()).astype(float)
    return Objective(standardised(X)[0], y, LOSSES[model], penalty_of(penalty, lam, 3.7, 3.0))


# -- penalties ---------------------------------------------------------------------------------------------------------


def test_scad_and_mcp_by_hand():
    """The dossier's item: lambda 1; SCAD(1) = 1, SCAD(a) = SCAD(inf) = 2.35; MCP of gamma 3 is 1.5 from 3 on."""
    assert SCAD(1.0, 3.7).value(np.array([1.0, 3.7, 1e9])) == pytest.approx([1.0, 2.35, 2.35], abs=1e-15)
    assert MCP(1.0, 3.0).value(np.array([3.0, 1e9])) == pytest.approx([1.5, 1.5])


@pytest.mark.parametrize("name", EVERY)
@given(b=st.floats(-20, 20), lam=st.floats(0.01, 3))
def test_penalty_is_l1_plus_a_smooth_concave_part(name, b, lam):
    """The dossier's item: lambda |b| + q = p, q' is the slope of q, continuous, and |q'| <= lambda."""
    penalty = penalty_of(name, lam, 3.7, 3.0)
    at = np.array([b])
    assert lam * np.abs(at) + penalty.concave(at) == pytest.approx(penalty.value(at), abs=1e-12)
    assert np.abs(penalty.concave_slope(at)) <= lam * (1 + 1e-12)
    step = 1e-5
    rise = (penalty.concave(at + step) - penalty.concave(at - step)) / (2 * step)
    assert rise == pytest.approx(penalty.concave_slope(at), abs=step)
    bend = np.abs(penalty.concave_slope(at + step) - penalty.concave_slope(at))
    assert bend <= penalty.curvature * step * (1 + 1e-6) + 1e-13


@pytest.mark.parametrize("name", EVERY)
def test_threshold_minimises_what_it_says(name):
    """Against a fine grid: (b - z)²/2 + p(b) is nowhere lower than at the threshold of z."""
    penalty, grid = penalty_of(name, 0.7, 3.7, 3.0), np.linspace(-6, 6, 24001)
    for z in np.linspace(-5, 5, 61):
        found = np.array([penalty.threshold(z)])
        value = 0.5 * (found - z) ** 2 + penalty.value(found)
        assert value[0] <= (0.5 * (grid - z) ** 2 + penalty.value(grid)).min() + 1e-9


# -- step parameters ---------------------------------------------------------------------------------------------------


def test_the_proposed_rule_solves_its_recursion():
    """The dossier's item: alpha_1 = 2 / (1 + sqrt 5), and 1/alpha_k² - 1/alpha_k = 1/alpha_(k-1)²; lam_k = beta / alpha_k."""
    alpha, size = proposed(1, 1.0, 0.5)
    assert alpha == pytest.approx(2 / (1 + math.sqrt(5))) and size == 0.5 / alpha
    for k in range(2, 50):
        before, (alpha, _) = alpha, proposed(k, alpha, 0.5)
        assert 1 / alpha**2 - 1 / alpha == pytest.approx(1 / before**2, rel=1e-12)
    assert original(3, 0.0, 0.5) == (0.5, 0.75)


def test_one_iteration_by_hand():
    """From b = 1 with A = (1, x), x = (1, -1), y = 0, MCP of lambda 0.1: the steps written out."""
    problem = Objective(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2), LOSSES["linear"], MCP(0.1, 3.0))
    assert problem.lipschitz() == pytest.approx(1.0)
    start = np.array([0.0, 1.0])
    steps = SOLVERS["ag"](problem, start)
    first, one, two = next(steps), next(steps), next(steps)
    assert first.value == one.value == pytest.approx(0.5 + 0.015)
    gradient = 1.0 - 0.1  # of the loss, and of the concave part beyond gamma lambda
    alpha, size = proposed(1, 1.0, 0.99)
    b, b_ag = 1 - size * gradient, 1 - 0.99 * gradient
    b, b_ag = np.sign(b) * max(abs(b) - 0.1 * size, 0), max(b_ag - 0.099, 0)
    alpha, _ = proposed(2, alpha, 0.99)
    assert two.b == pytest.approx([0, (1 - alpha) * b_ag + alpha * b], abs=1e-12)


def test_the_original_rule_has_half_the_step_and_ends_at_a_small_generalised_gradient():
    """Ghadimi & Lan: beta = 0.5 / L, alpha_1 = 1, so b_md is b, and lam_1 = beta / 2. The change is |b_md - b_ag| / beta."""
    problem = Objective(
        np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2), LOSSES["linear"], penalty_of("l1", 0.01, 0, 0)
    )
    for solver in ("ag_original", "ag"):
        steps = SOLVERS[solver](problem, np.array([0.0, 1.0]))
        next(steps)
        one, two = next(steps), next(steps)
        assert one.b == pytest.approx([0, 1]) and one.change == pytest.approx(1.01)  # gradient and lam
        if solver == "ag_original":
            b, b_ag = 1 - 0.25 * 1.01, 1 - 0.5 * 1.01
            assert two.b == pytest.approx([0, b_ag / 3 + 2 * b / 3])
    end = descend("ag", problem, np.array([0.0, 1.0]), 1e-3, 1000)
    assert problem.stationarity(end.b) < 1e-3 * 2


def test_lipschitz_constants_are_those_of_loss_and_concave_part(rng):
    """Linear: eigmax(A A') / n; logistic, half of the mean: an eighth of that; never below 1 / (a - 1) or 1 / gamma."""
    A, y = np.column_stack([np.ones(30), rng.normal(size=(30, 7))]), np.zeros(30)
    top = np.linalg.eigvalsh(A @ A.T)[-1] / 30
    for name, share in (("linear", 1.0), ("logistic", 1 / 8)):
        assert Objective(A, y, LOSSES[name], penalty_of("l1", 1, 0, 0)).lipschitz() == pytest.approx(share * top)
        assert Objective(A[:, :3], y, LOSSES[name], penalty_of("l1", 1, 0, 0)).lipschitz() == pytest.approx(
            share * np.linalg.eigvalsh(A[:, :3].T @ A[:, :3])[-1] / 30
        )
    for name, floor in (("scad", 1 / 2.7), ("mcp", 1 / 3)):
        assert Objective(1e-3 * A, y, LOSSES["linear"], penalty_of(name, 1, 3.7, 3)).lipschitz() == pytest.approx(floor)


def test_the_start_is_the_signs_of_the_covariances_with_a_free_intercept_at_zero(rng):
    X, y = made(rng)
    start = NonconvexRegressor(lam=0.3, max_iter=1).fit(X, y).start_
    assert start[0] == 0 and start[1:].tolist() == [np.sign(np.cov(x, y)[0, 1]) for x in X.T]
    assert not NonconvexRegressor(lam=0.3, start="zero", max_iter=1).fit(X, y).start_.any()


# -- solutions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_from_lam_max_on_nothing_is_stationary(name, model, rng):
    """The dossier's item: at every lambda >= lambda_max all penalised zeros are stationary, and the result from zero."""
    problem = objective(rng, name, model=model)
    top = paths.lam_max(problem.A, problem.y, problem.loss)
    for lam in (top * (1 + 1e-9), 2 * top):
        at = Objective(problem.A, problem.y, problem.loss, penalty_of(name, lam, 3.7, 3.0))
        null = np.zeros(problem.A.shape[1])
        null[0] = problem.loss.link(problem.y.mean())
        assert at.stationarity(null) < 1e-9
        for solver in ("ag", "ag_original", "prox"):
            found = descend(solver, at, np.zeros_like(null), 1e-8, 5000)
            assert (found.b[1:] == 0).all() and found.converged
    below = Objective(problem.A, problem.y, problem.loss, penalty_of(name, 0.9 * top, 3.7, 3.0))
    assert below.stationarity(null) > 0.05 * top


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("solver", [*SOLVERS])
def test_fixed_points_satisfy_one_stationarity_condition(name, solver, rng):
    """The dossier's item: AG, proximal gradient and coordinate descent end at points with 0 in the subdifferential."""
    problem = objective(rng, name)
    found = descend(solver, problem, np.zeros(31), 1e-9, 20_000)
    assert found.converged and problem.stationarity(found.b) < 1e-6


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("solver", [*SOLVERS])
def test_orthonormal_columns_are_thresholded_one_by_one(name, solver, rng):
    """The dossier's item: with X'X = n I the solution is the coordinates' thresholds of X'y / n."""
    n = 40
    Q = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, 12))]))[0] * np.sqrt(n)
    A = np.column_stack([np.ones(n), Q[:, 1:]])
    y = A[:, 1:] @ rng.normal(0, 1.5, 12) + 4
    penalty = penalty_of(name, 0.5, 3.7, 3.0)
    found = descend(solver, Objective(A, y, LOSSES["linear"], penalty), np.zeros(13), 1e-10, 20_000)
    assert found.b[1:] == pytest.approx([penalty.threshold(z) for z in A[:, 1:].T @ y / n], abs=1e-7)
    assert found.b[0] == pytest.approx(y.mean(), abs=1e-7)


def test_proximal_gradient_and_coordinate_descent_never_rise(rng):
    problem = objective(rng, "mcp", p=80)
    for solver in ("prox", "cd"):
        assert np.diff(descend(solver, problem, np.ones(81), 1e-6, 300).values).max() < 1e-10


def test_l1_is_scikit_learn_s_lasso_and_logistic_regression(rng):
    X, y = made(rng)
    X = (X - X.mean(0)) / X.std(0)
    ours = NonconvexRegressor("l1", lam=0.3, tol=1e-9, max_iter=20_000).fit(X, y)
    theirs = Lasso(0.3, tol=1e-12).fit(X, y)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-6) and ours.intercept_ == pytest.approx(theirs.intercept_)
    labels = y > y.mean()
    ours = NonconvexClassifier("l1", lam=0.02, tol=1e-9, max_iter=50_000).fit(X, labels)  # half of the mean log loss
    theirs = LogisticRegression(C=1 / (60 * 0.04), l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=50_000).fit(
        X, labels
    )
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-3)


def test_columns_may_have_any_unit_and_constant_ones_count_for_nothing(rng):
    X, y = made(rng)
    other = np.column_stack([1e3 * X + 7, np.full(60, 3.3)])
    one, two = NonconvexRegressor(lam=0.3).fit(X, y), NonconvexRegressor(lam=0.3).fit(other, y)
    assert two.coef_[:-1] == pytest.approx(one.coef_ / 1e3, rel=1e-9) and two.coef_[-1] == 0
    assert two.predict(other) == pytest.approx(one.predict(X), rel=1e-9)


def test_a_race_counts_from_the_start_to_the_best_of_the_rivals(rng):
    X, y = made(rng, p=200)
    fitted = NonconvexRegressor("l1", lam=0.1, solver="prox").fit(X, y)
    found = race(fitted, fitted.start_, -3.0)
    values = fitted.objectives_
    k = int(found["iterations_to"])
    target = values[-1] - found["behind"] + math.exp(-3)
    assert found["reached"] == 1 and values[k] <= target < values[k - 1]


# -- paths and strong rules --------------------------------------------------------------------------------------------


def along(rng, rule, model="linear", count=20, points=20):
    problem = objective(rng, model=model, n=60, p=90)
    y = problem.y if model == "logistic" else (problem.y - problem.y.mean()) / problem.y.std()
    lams = paths.grid(paths.lam_max(problem.A, y, problem.loss), count)[:points]
    recipe = paths.Recipe("scad", 3.7, 3.0, "ag", rule, 1e-8, 5000)
    return paths.follow(problem.A, y, problem.loss, lams, recipe)


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_the_correct_strong_rule_changes_no_solution(model):
    none, correct = (along(np.random.default_rng(1), rule, model, 20, 8) for rule in ("none", "correct"))
    assert correct.coefs == pytest.approx(none.coefs, abs=1e-5)
    assert sum(correct.kept) < sum(none.kept) / 2


def test_the_strong_rule_keeps_what_it_says_and_brings_violators_back():
    """Dropped: |slope| < 2 lam_new - lam_old at the solution before. Upwards, where the rule errs, a column comes back."""
    rng, loss = np.random.default_rng(177), LOSSES["linear"]
    A, *_ = standardised(rng.normal(size=(12, 8)) @ rng.normal(size=(8, 8)))
    y = rng.normal(size=12)
    y -= y.mean()
    top = paths.lam_max(A, y, loss)
    recipe = paths.Recipe("l1", 3.7, 3.0, "cd", "correct", 1e-9, 20_000)
    for lams in (top * np.array([0.02, 0.6]), top * np.linspace(1, 0.2, 5)):
        found, every = (
            paths.follow(A, y, loss, lams, replace(recipe, strong_rule=rule)) for rule in ("correct", "none")
        )
        assert found.coefs == pytest.approx(every.coefs, abs=1e-7) and every.violations == 0
        befores = [np.zeros(9), *found.coefs[:-1]]
        by_rule = [
            int(((paths.slopes(A, y, b, loss) >= 2 * new - old) | (b[1:] != 0)).sum())
            for b, old, new in zip(befores, [lams[0], *lams[:-1]], lams, strict=True)
        ]
        assert found.violations == sum(found.kept) - sum(by_rule) == (1 if lams[0] < lams[1] else 0)
    assert by_rule[0] == 1 and min(by_rule[1:]) < 8


def test_the_published_rule_drops_columns_that_stationarity_asks_for():
    """The defect that the dossier names: the linear slope is halved and nothing is looked at afterwards. Off by default."""
    correct, repo = (along(np.random.default_rng(1), rule) for rule in ("correct", "repo"))
    assert repo.violations > 0 and (repo.coefs[0, 1:] == 0).all()
    assert (repo.coefs != 0).sum() < (correct.coefs != 0).sum()
    assert NonconvexRegressor().strong_rule == "none"


def test_the_published_logistic_start_of_a_path_skips_the_first_covariate(rng):
    problem = objective(rng, model="logistic")
    top = paths.lam_max(problem.A, problem.y, problem.loss)
    assert paths.lam_max(problem.A, problem.y, problem.loss, skip_first=True) < top  # the first is the strongest here


def test_a_path_is_chosen_on_held_out_rows_and_falls_evenly(rng):
    X, y = made(rng, n=200)
    fitted = NonconvexRegressor(lam=None, n_lams=20, strong_rule="correct", random_state=0).fit(X, y)
    lams = fitted.path_.lams
    assert np.diff(lams) == pytest.approx(np.full(19, -lams[0] / 20)) and lams[-1] > 0
    assert (fitted.coef_[:4] != 0).all() and fitted.coef_[:4] == pytest.approx([3, -2, 1.5, 1], abs=0.3)
    milli = NonconvexRegressor(lam=None, n_lams=20, strong_rule="correct", random_state=0).fit(X, 1000 * y)
    assert milli.lam_ == pytest.approx(1000 * fitted.lam_)
    assert milli.coef_ == pytest.approx(1000 * fitted.coef_) and milli.intercept_ == pytest.approx(
        1000 * fitted.intercept_
    )


# -- scikit-learn ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        NonconvexRegressor(),
        NonconvexRegressor("mcp", solver="cd"),
        NonconvexRegressor(lam=None, n_lams=5, strong_rule="correct", random_state=0),
        NonconvexClassifier(),
        NonconvexClassifier("mcp", lam=None, n_lams=5, random_state=0),
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
        ({"penalty": "l0"}, "penalty='l0': one of scad, mcp, l1"),
        ({"a": 2.0}, "a=2.0: write a number above 2"),
        ({"penalty": "mcp", "gamma": 1}, "gamma=1: write a number above 1"),
        ({"lam": 0}, "lam=0: write a number above 0"),
        ({"solver": "adam"}, "one of ag, ag_original, prox, cd"),
        ({"tol": float("nan")}, "tol=nan: write a number above 0"),
        ({"max_iter": 0}, "max_iter=0: write a whole number of at least 1"),
        ({"strong_rule": "yes"}, "one of none, correct, repo"),
        ({"lam": None, "validation_fraction": 0.99}, "of 60 samples 1 are left to fit"),
    ],
)
def test_bad_options_are_one_line(options, message, rng):
    with pytest.raises(ValueError, match=message) as error:
        NonconvexRegressor(**options).fit(*made(rng))
    assert "\n" not in str(error.value)
    with pytest.raises(NotFittedError):
        NonconvexRegressor(**options).predict(made(rng)[0])


def test_bad_data_are_one_line(rng):
    X, y = made(rng)
    refused_in_one_line(NonconvexRegressor(), X, y)
    with pytest.raises(ValueError, match=r"y has 1 class\. Only binary classification is supported"):
        NonconvexClassifier().fit(X, np.zeros(60))
    with pytest.raises(ValueError, match="write solver='ag'"):
        NonconvexClassifier(solver="cd").fit(X, y > 0)
