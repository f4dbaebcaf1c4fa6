"""The problems of many columns: what is drawn is what their cards say, and scores by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets

from sparselab.estimation.problems.linear.recovery import SparseSample, recovery
from sparselab.estimation.problems.tables.ranking import RankingSample
from sparselab.estimation.problems.tables.sample import TableSample
from sparselab.running.planning import plan_of

ESTIMATORS = {
    "toeplitz_classification": "nonconvex_logistic",
    "factor_columns": "mi_screen",
    "repeated_measures": "tsallis_mixed",
    "noisy_table": "screened_ridge",
}


def problem(name, **changed):
    """The problem with its defaults and ``changed``."""
    given = [f"problem.{option}={value}" for option, value in changed.items()]
    return plan_of([f"estimator={ESTIMATORS.get(name, 'nonconvex_linear')}", f"problem={name}", *given]).parts[1]


# -- toeplitz ----------------------------------------------------------------------------------------------------------


def test_the_published_simulation_has_five_blocks_of_ten_and_a_toeplitz_covariance():
    """2,050 columns, 50 of them non-zero, 500 zeros between the blocks; block means 0.5, 5, 10, 20, 50; ddof 0."""
    drawn = problem("toeplitz_regression", n=400, block=10, gap=500, tau=0.7, snr=5.0).draw(0, 0)
    places = np.flatnonzero(drawn.coef)
    assert drawn.X.shape == (400, 2050) and len(places) == 50
    assert places.reshape(5, 10)[:, 0].tolist() == [0, 510, 1020, 1530, 2040]
    assert drawn.coef[places].reshape(5, 10).mean(1) == pytest.approx([0.5, 5, 10, 20, 50], abs=6)
    assert drawn.X.mean(0) == pytest.approx(0, abs=1e-12) and drawn.X.std(0) == pytest.approx(1)
    for lag in (1, 2, 3):
        assert (drawn.X[:, lag:] * drawn.X[:, :-lag]).mean() == pytest.approx(0.7**lag, abs=0.02)


def test_the_first_columns_have_the_covariance_too():
    X = problem("toeplitz_regression", n=8000, block=1, gap=0, tau=0.7).draw(0, 0).X
    assert np.corrcoef(X.T)[0] == pytest.approx(0.7 ** np.arange(5), abs=0.03)


def test_the_signal_to_noise_ratio_is_that_of_variances_and_draws_share_all_else():
    one, ten = (
        problem("toeplitz_regression", n=4000, block=2, gap=3, tau=0.5, snr=snr).draw(0, 0) for snr in (1.0, 10.0)
    )
    assert (one.X == ten.X).all() and (one.coef == ten.coef).all()
    noise = [drawn.y - drawn.X @ drawn.coef for drawn in (one, ten)]
    assert noise[0] == pytest.approx(np.sqrt(10) * noise[1])
    assert (one.X @ one.coef).var() / noise[0].var() == pytest.approx(1, rel=0.1)


def test_classes_follow_the_logistic_function_of_the_noisy_signal():
    drawn = problem("toeplitz_classification", n=6000, block=1, gap=0, tau=0.0, snr=1e9, intercept=0.0).draw(0, 0)
    signal = drawn.X @ drawn.coef
    assert set(drawn.y) == {0.0, 1.0}
    for low, high in ((-2, -1), (-0.5, 0.5), (1, 2)):
        at = (signal > low) & (signal < high)
        assert drawn.y[at].mean() == pytest.approx((1 / (1 + np.exp(-signal[at]))).mean(), abs=0.05)
    moved = problem("toeplitz_classification", n=6000, block=1, gap=0, tau=0.0, snr=1e9, intercept=2.0).draw(0, 0)
    assert moved.y.mean() > drawn.y.mean() + 0.1


# -- columns with factors ----------------------------------------------------------------------------------------------


def test_outcomes_are_made_of_the_true_columns_alone():
    options = {"n": 4000, "p": 30, "relevant": 4, "factors": 3, "shared": 0.0, "snr": 3.0}
    linear = problem("factor_columns", **options, response="linear", outcome="continuous").draw(0, 0)
    squared = problem("factor_columns", **options, response="squared", outcome="continuous").draw(0, 0)
    assert (linear.X == squared.X).all() and (linear.truth == squared.truth).all() and linear.truth.sum() == 4
    coef, left = np.linalg.lstsq(linear.X, linear.y)[:2]
    assert np.abs(coef[~linear.truth]).max() < 0.05 < 0.3 < coef[linear.truth].min()  # about 6 each, of a z-score
    assert left[0] / 4000 == pytest.approx(1 / 3, rel=0.1)  # SNR 3 of a signal of variance 1
    signal = linear.X @ coef
    assert np.corrcoef(squared.y, signal**2)[0, 1] > 0.8 and abs(np.corrcoef(squared.y, signal)[0, 1]) < 0.1


def test_factors_make_columns_correlate():
    alone, together = (
        problem("factor_columns", n=3000, p=20, relevant=2, factors=4, shared=shared).draw(0, 0).X
        for shared in (0.0, 0.6)
    )
    assert np.abs(np.corrcoef(alone.T) - np.eye(20)).max() < 0.1
    assert np.abs(np.corrcoef(together.T) - np.eye(20)).mean() > 0.15
    assert together.var() == pytest.approx(1, rel=0.25)


def test_binary_outcomes_follow_the_logistic_function_and_translated_ones_are_moved():
    options = {"n": 8000, "p": 5, "relevant": 2, "shared": 0.0, "factors": 0, "response": "linear"}
    shares = [
        problem("factor_columns", **options, outcome=name).draw(0, 0).y.mean() for name in ("binary", "translated")
    ]
    z = np.random.default_rng(0).standard_normal(100_000)
    moved = np.arctanh(np.sqrt(1 / 3))  # the published shift
    for share, shift in zip(shares, (0.0, moved), strict=True):
        assert share == pytest.approx((1 / (1 + np.exp(-z - shift))).mean(), abs=0.02)


# -- repeated measures, tables -----------------------------------------------------------------------------------------


def test_contamination_touches_a_share_of_the_responses_and_nothing_else():
    clean, off = (
        problem("repeated_measures", groups=40, contaminated=share, far=50.0).draw(0, 0) for share in (0.0, 0.1)
    )
    assert (clean.X.rows == off.X.rows).all() and (clean.X.groups == off.X.groups).all()
    moved = clean.y != off.y
    assert moved.sum() == round(0.1 * len(clean.y)) and np.abs(off.y - clean.y)[moved].std() > 10
    sizes = np.bincount(clean.X.groups)
    options = problem("repeated_measures").options
    assert len(sizes) == 40 and options.least <= sizes.min() <= sizes.max() <= options.most
    assert set(np.abs(clean.coef[clean.coef != 0])) == {1.0} and (clean.coef != 0).sum() == options.k


def test_rows_of_a_group_share_an_intercept():
    drawn = problem(
        "repeated_measures", groups=500, least=8, most=8, p=2, k=1, random=2.0, noise=0.5, contaminated=0.0
    ).draw(0, 0)
    left = (drawn.y - drawn.X.rows @ drawn.coef).reshape(500, 8)
    assert left.mean(1).std() == pytest.approx(2.0, rel=0.1) and left.std(1).mean() == pytest.approx(0.5, rel=0.1)


def test_a_table_is_scikit_learn_s_with_noise_beside_it_split_afresh_in_each_draw():
    drawn, other = (problem("noisy_table", table="diabetes", noise_columns=7, train=100).draw(0, n) for n in (0, 1))
    assert drawn.X.shape == (100, 17) and drawn.X_test.shape == (342, 17)
    data, target = datasets.load_diabetes(return_X_y=True)
    data, target = (data - data.mean(0)) / data.std(0), (target - target.mean()) / target.std()
    place = [int(np.abs(data - row[:10]).sum(1).argmin()) for row in np.vstack([drawn.X, drawn.X_test])]
    assert sorted(place) == list(range(442))  # every row once
    assert np.concatenate([drawn.y, drawn.y_test]) == pytest.approx(target[place])
    assert (drawn.X[:, :10] != other.X[:, :10]).any()


# -- scores ------------------------------------------------------------------------------------------------------------


def test_recovery_by_hand():
    found = recovery(np.array([1.0, 0, 2, 0, 3, 0]), np.array([1.0, 1, 0, 0, 3, 1]))
    assert found == {
        "error": pytest.approx(6 / 12),
        "error_max": 2.0,
        "ppv": pytest.approx(2 / 3),
        "npv": pytest.approx(1 / 3),
        "active": 3.0,
        "sparsity": 0.5,
    }
    nothing = recovery(np.zeros(3), np.array([1.0, 0, 0]))
    assert nothing["ppv"] == 1 and nothing["npv"] == pytest.approx(2 / 3) and nothing["error"] == 1
    sample = SparseSample(None, np.zeros(2), np.array([1.0, 0]), {"tau": 0.5})
    assert sample.measure(SimpleNamespace(coef_=np.array([[2.0, 0]])))["tau"] == 0.5


def test_a_ranking_and_a_table_are_scored_by_hand():
    truth = np.array([True, False, True, False])
    fitted = SimpleNamespace(scores_=np.array([3.0, 2, 1, 0]), get_support=lambda: np.array([True, True, False, False]))
    found = RankingSample(np.zeros((2, 4)), np.zeros(2), truth).measure(fitted)
    assert found == {"auroc": 0.75, "ppv": 0.5, "recall": 0.5, "relevant": 2.0, "sparsity": 0.5}
    test, target = np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([1.0, 5])
    table = TableSample(test, target, test, target, 1)
    fitted = SimpleNamespace(coef_=np.array([1.0, 0, 3]), predict=lambda X: X @ np.array([1.0, 0, 3]))
    found = table.measure(fitted)  # predicts 1 and 0 where 1 and 5 are: mean square 12.5 of a variance of 4
    assert found == {"error": 3.125, "sparsity": pytest.approx(1 / 3), "noise_kept": 1.0, "noise_weight": 0.75}
