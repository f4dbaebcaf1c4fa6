"""A regressor that learns its own penalties: scikit-learn's checks, what it learns, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from bad_data import refused_in_one_line
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import check_estimator

from sparselab.core.errors import ConfigError
from sparselab.estimation.estimators.penalised.ridge import BilevelPenaltyRegressor
from sparselab.estimation.problems.levels.penalties import Penalties
from sparselab.estimation.problems.problem import PROBLEMS
from sparselab.estimation.problems.tables.sample import TableSample
from sparselab.running.planning import engine_of, plan_of

QUICK = {"max_iter": 10, "inner_steps": 3}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 12)) * np.geomspace(0.1, 10, 12) + 3
    w = np.zeros(12)
    w[:3] = [20.0, -10.0, 5.0]
    return X, X @ w + rng.normal(size=80)


@pytest.mark.parametrize("variant", ["double", "single"])
def test_scikit_learn_accepts_it(variant):
    check_estimator(BilevelPenaltyRegressor(variant, **QUICK))


@pytest.mark.parametrize("variant", ["double", "single"])
def test_it_learns_what_descent_on_the_exact_hypergradient_learns(data, variant):
    """The upper level at the learned penalties, against as many steps of the same length along the true gradient."""
    X, y = data
    steps = {"double": 200, "single": 2000}[variant]
    found = BilevelPenaltyRegressor(variant, sigma=0.02, max_iter=steps, lr_x=200.0, random_state=0).fit(X, y)
    A, b = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    order = np.random.RandomState(0).permutation(80)
    fit, held = order[24:], order[:24]
    level = Penalties((A[fit], b[fit]), (A[held], b[held]), -3.0, -7.0, 9.0, 0.0)
    x = level.x0
    for _ in range(steps):
        x = level.project_x(x - 4.0 * level.gradient(x))
    begun, exact, learned = map(level.value, (level.x0, x, np.log(found.penalty_)))
    assert learned < begun and abs(learned - exact) < 0.1 * (begun - exact)
    assert found.n_oracle_calls_ == found.n_iter_ * (33 if variant == "double" else 6)


def test_the_weights_are_those_of_ridge_regression_with_the_learned_penalties(data):
    """Columns divided by the square roots of their penalties turn a penalty of each into one of all."""
    X, y = data
    found = BilevelPenaltyRegressor(random_state=0, **QUICK).fit(X, y)
    A = (X - X.mean(0)) / X.std(0) / np.sqrt(found.penalty_)
    weights = Ridge(alpha=len(y), fit_intercept=False).fit(A, (y - y.mean()) / y.std()).coef_
    assert np.allclose(found.coef_, weights / np.sqrt(found.penalty_) * y.std() / X.std(0))
    assert np.allclose(found.predict(X), X @ found.coef_ + found.intercept_)


def test_the_units_of_columns_and_target_do_not_matter(data):
    X, y = data
    one, other = (
        BilevelPenaltyRegressor(random_state=0, **QUICK).fit(a, b) for a, b in ((X, y), (X * 7 - 2, 5 * y + 1))
    )
    assert np.allclose(one.penalty_, other.penalty_) and np.allclose(5 * one.coef_ / 7, other.coef_)


def test_the_same_random_state_gives_the_same_fit_and_parameters_stay(data):
    estimator = BilevelPenaltyRegressor(random_state=3, **QUICK)
    one, other = clone(estimator).fit(*data), clone(estimator).fit(*data)
    assert (one.coef_ == other.coef_).all() and one.get_params() == estimator.get_params()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"variant": "triple"}, "variant='triple': one of double, single"),
        ({"sigma": 0}, "sigma=0: write a number above 0"),
        ({"sigma": float("nan")}, "sigma=nan: write a number above 0"),
        ({"lr_x": -1.0}, r"lr_x=-1.0: write a number above 0"),
        ({"max_iter": 0}, "max_iter=0: write a whole number of at least 1"),
        ({"inner_steps": 2.5}, r"inner_steps=2.5: write a whole number"),
        ({"l1": -1}, "l1=-1: write a number of at least 0"),
        ({"val_fraction": 1.0}, r"val_fraction=1.0: write a number above 0 and below 1"),
        ({"val_fraction": 0.99}, r"val_fraction=0.99: of 80 samples fewer than 2 are left"),
        ({"start": 20.0}, r"start=20.0: write a number between low=-7.0 and high=9.0"),
        ({"high": 1e4}, r"high=10000.0: write at most 300"),
        ({"variant": ["double"]}, r"variant=\['double'\]: one of double, single"),
        ({"l1": "0"}, "l1='0': write a number of at least 0"),
        ({"max_iter": True}, "max_iter=True: write a whole number"),
    ],
)
def test_bad_parameters_are_one_line(data, options, line):
    with pytest.raises(ValueError, match=line) as refused:
        BilevelPenaltyRegressor(**{**QUICK, **options}).fit(*data)
    assert "\n" not in str(refused.value)


def test_bad_data_are_one_line(data):
    X, y = data
    refused_in_one_line(BilevelPenaltyRegressor(**QUICK), X, y, [((X[:1], y[:1]), ValueError, "minimum of 4")])
    with pytest.raises(TypeError, match="dense data is required"):
        BilevelPenaltyRegressor(**QUICK).fit(sparse.csr_matrix(X), y)


def test_more_columns_than_samples_and_a_constant_column_are_no_trouble(data):
    X, y = data
    found = BilevelPenaltyRegressor(random_state=0, **QUICK).fit(np.column_stack([X[:10], np.ones(10)]), y[:10])
    assert np.isfinite(found.coef_).all() and found.coef_[-1] == 0


def test_the_scores_of_a_table():
    class Half:
        coef_ = np.array([0.5, 0.0, 0.0005, 0.5])

        def predict(self, X):
            return X @ self.coef_

    X = np.eye(4)
    sample = TableSample(X, X @ Half.coef_, X, np.array([1.5, 1.0, 1.0005, 1.5]), 2)
    scores = sample.measure(Half())
    assert scores["error"] == pytest.approx(1 / sample.y_test.var())
    assert (scores["sparsity"], scores["noise_kept"]) == (0.5, 0.5)
    assert scores["noise_weight"] == pytest.approx(0.5005 / 1.0005)


@pytest.mark.parametrize("table", ["diabetes", "breast_cancer", "wine"])
def test_a_table_is_drawn_by_its_place_and_has_the_announced_shape(table):
    cls = PROBLEMS["noisy_table"]
    made = cls(cls.Options(table=table, noise_columns=7, train=50))
    one, same, other = made.draw(0, 1), made.draw(0, 1), made.draw(0, 2)
    assert (one.X == same.X).all() and not np.array_equal(one.X, other.X)
    assert one.X.shape == (50, made.size()) and len(one.X) + len(one.X_test) == len(one.y) + len(one.y_test)
    assert not made.issues() and cls(cls.Options(table=table, noise_columns=7, train=1000)).issues()


@pytest.mark.parametrize("estimator", ["bilevel_ridge", "ridge_cv", "lasso_cv"])
def test_a_cell_is_a_record(estimator, tmp_path):
    quick = ["estimator.max_iter=5"] if estimator == "bilevel_ridge" else ["estimator.alphas=3"]
    plan = plan_of([f"estimator={estimator}", *quick, f"runs_dir={tmp_path}", "trainer.threads=1"])
    metrics = engine_of(plan.config).run(plan)["metrics"]
    assert 0 < metrics["test.error"] < 2 and 0 <= metrics["test.sparsity"] <= 1


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["estimator=bilevel_ridge", "estimator.start=10.0"], "estimator.start=10: is not between -7 and 9"),
        (["estimator=ridge_cv", "problem.train=500"], "problem.train=500: diabetes has 442 rows, and 10 have to test"),
        (["estimator=lasso_cv", "estimator.folds=300"], "estimator.folds=300: there are 200 samples"),
        (["estimator=bilevel_ridge", "problem=sem"], "problem=sem estimator=bilevel_ridge: it takes a regression"),
    ],
)
def test_bad_requests_are_answered_at_once(typed, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(typed)
    assert [str(issue) for issue in refused.value.issues if str(issue).startswith(line)]
