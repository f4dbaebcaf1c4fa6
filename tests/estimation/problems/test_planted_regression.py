"""Designs, supports and scores of `planted_regression`: uniform supports, worst values, and the truth's own sizes."""

from __future__ import annotations

import numpy as np
import pytest

from sparselab.core.errors import ConfigError
from sparselab.estimation.estimators.linear.greedy import LeastSquares
from sparselab.estimation.problems.designs import plant
from sparselab.estimation.problems.designs.mixing import condition, mixing
from sparselab.estimation.problems.designs.real import REAL, real
from sparselab.estimation.problems.regression import TABLES, PlantedRegression
from sparselab.running.planning import plan_of


def problem(**changed):
    options = {
        "design": "tree", "n": 12, "d": 15, "k": 3, "support": "random", "values": "worst", "noise": 0.5, "decay": 4.0,
        "common": 30.0, "given": "all",
    }  # fmt: skip
    return PlantedRegression(PlantedRegression.Options(**{**options, **changed}))


def test_random_supports_are_uniform():
    """Item: inclusion frequency k/d; a pair is held with probability k(k-1)/(d(d-1))."""
    rng, X, draws = np.random.default_rng(0), np.zeros((1, 10)), 4000
    held = np.zeros((draws, 10))
    for row in held:
        row[plant.uniform(X, 4, rng)] = 1
    assert (held.sum(1) == 4).all()
    assert np.abs(held.mean(0) - 0.4).max() < 4 * np.sqrt(0.4 * 0.6 / draws)
    pair = (held[:, 2] * held[:, 7]).mean()
    assert pair == pytest.approx(4 * 3 / (10 * 9), abs=4 * np.sqrt(0.13 * 0.87 / draws))


def test_supports_that_hurt_are_columns_in_a_row_or_the_closest_ones():
    rng, X = np.random.default_rng(0), np.array([[1.0, 0.0, -1.01, 0.3], [0.0, 1.0, 0.0, 1.0]])
    for _ in range(20):
        row = plant.adjacent(X, 3, rng)
        assert row.tolist() in ([0, 1, 2], [1, 2, 3])
        assert plant.closest(X, 2, rng).tolist() in ([0, 2], [1, 3])  # opposite columns are close, too


def test_worst_values_are_the_smallest_singular_vector_and_the_signal_has_energy_one():
    rng = np.random.default_rng(1)
    X, places = rng.normal(size=(30, 6)), np.array([1, 4, 5])
    w = plant.parameter(X, places, "worst", rng)
    assert (X @ w) @ (X @ w) / 30 == pytest.approx(1) and (np.flatnonzero(w) == places).all()
    # no other direction on the support needs longer coefficients for the same signal
    assert np.linalg.norm(w) == pytest.approx(np.sqrt(30) / np.linalg.svd(X[:, places])[1][-1])
    gauss = plant.parameter(X, places, "gauss", rng)
    assert (X @ gauss) @ (X @ gauss) / 30 == pytest.approx(1) and np.linalg.norm(gauss) <= np.linalg.norm(w)


def test_values_that_nothing_shows_are_passed_over_and_a_support_of_zeros_is_refused():
    X = np.column_stack([np.ones(5), np.ones(5), np.arange(5.0), np.zeros(5)])
    w = plant.parameter(X, np.array([0, 1]), "worst", np.random.default_rng(0))
    assert w[0] == pytest.approx(w[1])  # the difference of equal columns would have no energy
    with pytest.raises(ValueError, match="all columns of the support are zero"):
        plant.parameter(X, np.array([3]), "worst", np.random.default_rng(0))


def test_mixing_matrices_are_the_designs():
    assert (mixing("iid", 3, 4.0, 30.0) == np.eye(3)).all()
    assert mixing("walk", 3, 4.0, 30.0).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert mixing("factor", 2, 4.0, 30.0).tolist() == [[30, 30], [1, 0], [0, 1]]
    tree = mixing("tree", 4, 4.0, 30.0)  # column 3 is a child of 1, a child of 0
    assert tree.tolist() == [[1, 1, 1, 1], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0], [0, 0, 0, 0.25]]
    assert condition("factor", 4, 4.0, 30.0) == pytest.approx(30**2 * 4 + 1)
    assert condition("iid", 4, 4.0, 30.0) == 1
    conditions = [condition("tree", 15, decay, 30.0) for decay in (1.0, 4.0, 16.0)]
    assert conditions == sorted(conditions) and conditions[-1] > 1e3 * conditions[0]


@pytest.mark.parametrize("design", REAL)
def test_tables_have_the_sizes_that_planning_says(design):
    X = real(design)
    assert X.shape == TABLES[design] and np.isfinite(X).all() and not X.flags.writeable
    assert (X.std(0) > 0).all()
    one, other = (problem(design=design, d=None).draw(seed).design for seed in (0, 1))
    assert (one != other).any() and all((row == X).all(1).any() for row in one)  # twelve rows of the table at random


def test_draws_repeat_share_rows_over_n_and_give_the_oracle_its_columns():
    few, many = problem().draw(3, 1), problem(n=20).draw(3, 1)
    assert (few.X == problem().draw(3, 1).X).all() and (many.X[:12] == few.X).all()
    assert (few.y != problem().draw(3, 2).y).any()
    oracle = problem(given="support").draw(3, 1)
    assert oracle.X.shape == (12, 3) and (oracle.design == few.design).all() and (oracle.y == few.y).all()
    scores = oracle.measure(LeastSquares().fit(oracle.X, oracle.y))
    assert scores["support_f1"] == 1 and scores["sparsity"] == pytest.approx(12 / 15) and scores["error"] < 0.5
    ours = few.measure(LeastSquares().fit(few.X, few.y))  # interpolates, so what is left is the noise
    assert ours["error"] == pytest.approx((few.noise**2).mean()) == ours["best_error"]
    assert (ours["samples"], ours["features"], ours["nonzeros"]) == (12, 15, 3)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["problem.k=129"], "problem.k=129: there are 128 columns — write at most 128"),
        (["problem.d=null"], "problem.d=null: tree has as many columns as asked for — write problem.d=128"),
        (["problem.design=digits"], "problem.d=128: digits has 50 columns of its own — write problem.d=null"),
        (["problem.design=wine_bins", "problem.d=null", "problem.n=179"],
         "problem.n=179: wine_bins has 178 rows — write at most 178"),
        (["estimator.k=200"], "estimator.k=200: there are 128 columns — write at most 128"),
        (["estimator=omp", "estimator.k=61"], "estimator.k=61: there are 60 samples — write at most 60"),
        (["estimator=omp", "estimator.k=5", "problem.given=support"],
         "estimator.k=5: there are 4 columns — write at most 4"),
        (["estimator=best_subset", "estimator.k=null"],
         "problem.d=128: there are 10,668,000 supports of 4 — choose d and k with at most"),
        (["estimator.lam=-0.5"], "estimator.lam=-0.5: input should be greater than or equal to 0 — the penalty, at least 0"),
        (["estimator=omp", "problem=planted_sparse"],
         "problem=planted_sparse estimator=omp: it takes a regression, and this is a set of users — write problem="),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_bad_requests_are_answered_while_planning(typed, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(["estimator=preconditioned_lasso", *typed])
    (found,) = map(str, refused.value.issues)
    assert found.startswith(line)
