"""The Lasso in features: what a certificate and a penalty prove, every exact item of the dossier, bad input, scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bad_data import refused_in_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.linear.certificate import certify, longest, rho
from sparselab.estimation.estimators.linear.features import Preconditioner
from sparselab.estimation.estimators.linear.greedy import BestSubset, LeastSquares, MatchingPursuit
from sparselab.estimation.estimators.linear.peeling import cover, peel
from sparselab.estimation.estimators.linear.preconditioned import PreconditionedLasso
from sparselab.estimation.estimators.linear.proximal import gap, lasso
from sparselab.estimation.estimators.linear.trees import auto_tree, binary, chain, difference, identity, spanning
from sparselab.estimation.problems.regression import PlantedRegression
from sparselab.running.planning import engine_of, plan_of

TIGHT = {"tol": 1e-12, "max_iter": 100_000}
ROUTINES = ("identity", "difference", "auto_tree", "peel", "certified")
ALL = (PreconditionedLasso, MatchingPursuit, LeastSquares, BestSubset)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    X = np.cumsum(rng.normal(size=(40, 6)), axis=1)
    return X, X @ [0.0, 1, -1, 0, 0, 0] + 0.1 * rng.normal(size=40)


# -- the dossier's items -----------------------------------------------------------------------------------------------


def test_identity_is_the_ordinary_lasso(data):
    """Item: S = identity gives the ordinary Lasso (of scaled columns), coefficient for coefficient."""
    X, y = data
    norms = np.linalg.norm(X, axis=0) / math.sqrt(40)
    expected = Lasso(alpha=0.05, fit_intercept=False, **TIGHT).fit(X / norms, y).coef_ / norms
    for solver in ("cd", "fista"):
        found = PreconditionedLasso("identity", lam=0.05, solver=solver, **TIGHT).fit(X, y)
        assert np.allclose(found.coef_, expected, atol=1e-5) and found.preconditioner_.plain


@pytest.mark.parametrize("routine", ROUTINES)
def test_without_penalty_every_invertible_s_predicts_like_least_squares(routine, data):
    """Item: S invertible, lam = 0, N >= d: prediction equals OLS for every S."""
    X, y = data
    ols = LinearRegression(fit_intercept=False).fit(X, y).predict(X)
    found = PreconditionedLasso(routine, lam=0.0, random_state=0).fit(X, y)
    assert np.allclose(found.predict(X), ols, atol=1e-8)


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize("step", ["raw", "unit"])
def test_coefficients_and_features_predict_the_same_and_features_have_one_length(routine, step, rng):
    """Item: w_hat = S v_hat and X w_hat = (XS) v_hat to 1e-10; columns of XS have norm sqrt(N)."""
    X = rng.normal(size=(15, 20)) @ np.triu(np.ones((20, 20)))
    found = PreconditionedLasso(routine, step=step, sigma=0.2, random_state=0).fit(X, X[:, 3] - X[:, 4])
    S = found.preconditioner_
    assert np.abs(found.coef_ - S.S @ found.v_).max() < 1e-10
    assert np.abs(X @ found.coef_ - S.of(X) @ found.v_).max() < 1e-10
    assert np.allclose(np.linalg.norm(S.of(X), axis=0), math.sqrt(15), rtol=1e-12)
    assert np.allclose(S.S @ S.lift, np.eye(20), atol=1e-9)


def test_a_chain_of_three():
    """Item: S = [[1,-1,0],[0,1,-1],[0,0,1]], S^-1 = upper-triangular ones; w = (1,-1,0) gives v = (0,-1,0)."""
    X = math.sqrt(3) * np.triu(np.ones((3, 3)))  # so that every feature has length sqrt(N) as it is
    found = difference(X, chain(3))
    assert np.allclose(found.S, [[1, -1, 0], [0, 1, -1], [0, 0, 1]])
    assert np.allclose(found.lift, np.triu(np.ones((3, 3))))
    assert np.allclose(found.least(np.array([1.0, -1.0, 0.0])), [0, -1, 0])


def test_two_identical_columns_have_no_finite_certificate_as_they_are_but_do_as_differences(rng):
    """Item: rho(identity) is infinite on a support that holds both (reported, no crash); differences drop what vanishes."""
    X = rng.normal(size=(12, 4))
    X[:, 2] = X[:, 1]
    assert rho(X, identity(X), np.array([0, 1, 2])) == math.inf
    assert math.isfinite(rho(X, identity(X), np.array([0, 1, 3])))
    differences = difference(X, chain(4))
    assert differences.S.shape == (4, 3) and math.isfinite(rho(X, differences, np.array([0, 1, 2])))
    found = PreconditionedLasso("identity", k=3, sigma=0.1, random_state=0).fit(X, X[:, 0])
    assert found.certificate_.high == math.inf
    assert PreconditionedLasso("auto_tree", k=3, random_state=0).fit(X, X[:, 0]).certificate_.high < math.inf


def test_on_an_orthonormal_design_rho_is_sqrt_k_and_the_fit_a_soft_threshold(rng):
    """Item: orthonormal design scaled by sqrt(N): rho(identity; T) = sqrt(k); v_hat = soft(X^T y / N, lam)."""
    X = np.linalg.qr(rng.normal(size=(30, 8)))[0] * math.sqrt(30)
    y = X @ rng.normal(size=8) + rng.normal(size=30)
    for k in (1, 3, 8):
        assert rho(X, identity(X), rng.permutation(8)[:k]) == pytest.approx(math.sqrt(k))
    z = X.T @ y / 30
    for solver in ("cd", "fista"):
        found = PreconditionedLasso("identity", lam=0.4, solver=solver, **TIGHT).fit(X, y)
        assert np.allclose(found.v_, np.sign(z) * np.maximum(np.abs(z) - 0.4, 0), atol=1e-6)


@given(
    seed=st.integers(0, 10**6), design=st.sampled_from(["iid", "walk", "factor", "tree"]),
    support=st.sampled_from(["random", "adjacent", "closest"]), routine=st.sampled_from(ROUTINES),
    above=st.sampled_from([1.0, 1.5, 4.0]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_error_is_at_most_four_lam_times_the_norm(seed, design, support, routine, above):
    """Item: (1/N)|X(w_hat - w*)|^2 <= 4 lam |v|_1 whenever lam >= |(XS)^T noise|_max / N. Here lam is just that, or above."""
    options = PlantedRegression.Options(
        design=design, n=14, d=20, k=3, support=support, values="worst", noise=0.5, decay=4.0, common=10.0, given="all"
    )
    sample = PlantedRegression(options).draw(seed)
    S = PreconditionedLasso(routine, lam=1.0, random_state=0, rounds=3, certify_draws=3)
    S = S.fit(sample.X, sample.y).preconditioner_
    lam = above * float(np.abs(S.of(sample.X).T @ sample.noise).max()) / 14
    fitted = PreconditionedLasso(routine, lam=lam, random_state=0, rounds=3, certify_draws=3, tol=1e-8, max_iter=20_000)
    scores = sample.measure(fitted.fit(sample.X, sample.y))
    assert scores["event"] == 1 and scores["of_bound"] <= 1 and scores["error"] <= scores["bound"]
    assert scores["bound"] == pytest.approx(4 * lam * np.abs(S.least(sample.w)).sum())


@pytest.mark.parametrize("routine", ROUTINES)
def test_without_noise_and_with_a_vanishing_penalty_the_error_vanishes(routine, data):
    """Item: zero noise and lam -> 0: error -> 0."""
    X = data[0][:5]  # fewer samples than columns
    signal = X @ [0.0, 1, -1, 0, 0, 0]
    errors = []
    for lam in (1e-1, 1e-3, 1e-5):
        found = PreconditionedLasso(routine, lam=lam, random_state=0, **TIGHT).fit(X, signal)
        errors.append(((found.predict(X) - signal) ** 2).mean())
    assert errors[2] < 1e-6 and errors[2] <= errors[0]


# -- preconditioners ---------------------------------------------------------------------------------------------------


def test_the_spanning_tree_of_a_walk_is_its_chain_and_of_a_steep_tree_the_tree(rng):
    X = np.cumsum(rng.normal(size=(400, 8)), axis=1)
    assert spanning(X)[0].tolist() == chain(8).tolist()
    flipped = X * np.array([1, -1, 1, 1, -1, 1, 1, 1])
    parents, signs = spanning(flipped)
    assert parents.tolist() == chain(8).tolist() and signs.tolist() == [1, -1, -1, 1, -1, -1, 1, 1]
    assert binary(7).tolist() == [-1, 0, 0, 1, 1, 2, 2]
    found = auto_tree(flipped)
    assert np.allclose(found.S @ found.lift, np.eye(8))
    assert np.allclose(np.abs(found.of(flipped)), np.abs(difference(X, chain(8)).of(X)))
    same = np.repeat(X[:, :1], 3, axis=1)  # columns at distance 0 are joined all the same
    assert auto_tree(same).S.shape == (3, 1)


def test_peeling_takes_off_what_columns_share_and_keeps_the_way_back(rng):
    X = 30 * rng.normal(size=(50, 1)) + rng.normal(size=(50, 10))
    raw = identity(X)
    found = peel(X, lambda S: False, rounds=1)
    few, many = (certify(X, S, 3, 20, np.random.default_rng(0)).high for S in (found, raw))
    assert few < many / 3
    assert np.allclose(found.S @ found.lift, np.eye(10), atol=1e-9)
    assert peel(X, lambda S: True).plain  # a certificate that holds ends it at once
    walk = np.cumsum(np.random.default_rng(2).normal(size=(60, 30)), axis=1)
    wide = peel(walk, lambda S: False, tau=0.9, share=0.1, rounds=8)
    assert wide.S.shape[1] > 30  # a former Q that is taken off stays beside what is left of it
    assert np.allclose(wide.S @ wide.lift, np.eye(30), atol=1e-8)
    w = np.zeros(30)
    w[[4, 5]] = 1, -1
    v = wide.least(w)
    assert np.allclose(wide.S @ v, w, atol=1e-7) and np.abs(v).sum() <= np.abs(wide.lift @ w).sum() + 1e-9


def test_the_cover_is_the_column_that_is_near_to_most():
    F = np.array([[1.0, 0.98, 0.97, 0.0], [0.0, 0.199, -0.243, 1.0]])
    F /= np.linalg.norm(F, axis=0)
    chosen, near = cover(F, 0.3, 1)
    assert chosen == [0] and near.tolist() == [1, 2]


def test_the_longest_image_is_that_of_all_directions_tried(rng):
    for m in (3, 9, 40):  # enumerated, enumerated, climbed
        A = rng.normal(size=(m, 2))
        angles = np.linspace(0, math.pi, 20_001)
        tried = np.abs(A @ np.array([np.cos(angles), np.sin(angles)])).sum(0).max()
        assert longest(A) == pytest.approx(tried, rel=1e-6)
    assert longest(np.vstack([A[:2], -3 * A[:1]])) == pytest.approx(longest(np.vstack([4 * A[:1], A[1:2]])))
    assert longest(np.zeros((5, 2))) == 0


def test_phase_one_never_looks_at_the_responses(data):
    X, y = data
    one, other = (PreconditionedLasso(random_state=3).fit(X, z) for z in (y, np.random.default_rng(5).normal(size=40)))
    assert (one.preconditioner_.S == other.preconditioner_.S).all() and one.certificate_ == other.certificate_


def test_a_certificate_is_the_median_and_the_ninetieth_percentile_over_uniform_supports():
    """Of rho = 0, 1, …, 9 in some order: the values at or above a half and nine tenths of the way."""
    values, seen = iter(range(10)), []

    def of(X, features, T):
        seen.append(T)
        return float(next(values))

    X = np.eye(6)
    found = certify(X, identity(X), 3, 10, np.random.default_rng(0), of)
    assert (found.median, found.high, found.k, found.draws) == (5.0, 9.0, 3, 10)
    assert all(len(set(T)) == 3 for T in seen) and len({tuple(sorted(T)) for T in seen}) > 5


def test_the_best_certificate_is_taken(rng):
    walk = np.cumsum(rng.normal(size=(60, 24)), axis=1)
    found = {name: PreconditionedLasso(name, k=2, random_state=0).fit(walk, walk[:, 0]) for name in ROUTINES}
    best = min((found[name] for name in ("identity", "auto_tree", "peel")), key=lambda f: f.certificate_.high)
    assert found["certified"].certificate_.high == best.certificate_.high


# -- penalties and solvers ---------------------------------------------------------------------------------------------


def test_the_theorys_penalty_is_above_the_noise_as_often_as_it_says(rng):
    X, above = rng.normal(size=(50, 30)), 0
    lam = PreconditionedLasso("identity", sigma=0.7, delta=0.2).fit(X, X[:, 0]).lam_
    assert lam == pytest.approx(0.7 * math.sqrt(2 * math.log(60 / 0.2) / 50))
    F = identity(X).of(X)
    for _ in range(300):
        above += lam >= np.abs(F.T @ (0.7 * rng.normal(size=50))).max() / 50
    assert above >= 0.8 * 300


def test_the_noise_is_estimated(rng):
    X = rng.normal(size=(200, 20))
    found = PreconditionedLasso("identity").fit(X, X[:, 0] * 3 + 0.5 * rng.normal(size=200))
    assert found.sigma_ == pytest.approx(0.5, abs=0.15)
    assert PreconditionedLasso("identity", lam="cv").fit(X, X[:, 0]).sigma_ is None
    assert np.isfinite(PreconditionedLasso().fit(X, np.zeros(200)).coef_).all()


def test_a_path_is_kept_and_holds_the_fit(data):
    X, y = data
    found = PreconditionedLasso("identity", sigma=0.1, path=12).fit(X, y)
    assert found.coef_path_.shape == (12, 6) and not found.coef_path_[0].any()
    assert not hasattr(PreconditionedLasso("identity", sigma=0.1).fit(X, y), "coef_path_")


def test_solvers_agree_and_the_gap_says_how_far_they_are(rng):
    F, y = rng.normal(size=(20, 30)), rng.normal(size=20)
    both = [lasso(F, y, np.array([0.3, 0.05, 0.0]), solver, 1e-10, 50_000)[0] for solver in ("cd", "fista")]
    assert np.allclose(*both, atol=1e-4) and np.allclose(F @ both[0][:, 2], y)
    assert 0 <= gap(F, y, both[1][:, 1], 0.05) <= 1e-9 * (y @ y)
    assert gap(F, y, np.zeros(30), 1e9) == pytest.approx(0)


# -- what it is compared with ------------------------------------------------------------------------------------------


def test_greedy_and_exhaustive_search_find_a_planted_support(rng):
    X = rng.normal(size=(40, 9)) * np.geomspace(1, 1e3, 9)
    y = X[:, 2] * 2 - X[:, 6] / 50
    for estimator in (MatchingPursuit(k=2), BestSubset(k=2)):
        coef = estimator.fit(X, y).coef_
        assert np.flatnonzero(coef).tolist() == [2, 6] and coef[[2, 6]] == pytest.approx([2, -0.02])
    X[:, 3] = X[:, 2]  # columns that depend on each other end the pursuit, and nothing breaks
    assert np.allclose(BestSubset(k=2).fit(X, y).predict(X), y)
    assert np.isfinite(MatchingPursuit(k=6).fit(X, y).coef_).all()
    wide = LeastSquares().fit(X[:4], y[:4])
    assert np.allclose(wide.predict(X[:4]), y[:4]) and wide.rank_ == 4


def test_the_best_subset_is_best(rng):
    X, y = rng.normal(size=(15, 7)), rng.normal(size=15)
    found = BestSubset(k=3).fit(X, y)
    least = ((y - found.predict(X)) ** 2).sum()
    for _ in range(40):
        T = rng.permutation(7)[:3]
        assert least <= ((y - X[:, T] @ np.linalg.lstsq(X[:, T], y)[0]) ** 2).sum() + 1e-9


# -- bad input, scikit-learn, cells ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_bad_data_are_answered_in_one_line(cls, data):
    X, y = data
    refused_in_one_line(cls(), X, y)
    with pytest.raises(ValueError, match="is expecting 6 features"):
        cls().fit(X, y).predict(X[:, :2])


@pytest.mark.parametrize(
    ("estimator", "line"),
    [
        (PreconditionedLasso(k=7), "k=7: more non-zeros than n_features=6"),
        (MatchingPursuit(k=7), "k=7: more non-zeros than n_features=6"),
        (BestSubset(k=7), "k=7: more non-zeros than n_features=6"),
        (BestSubset(k=0), "k=0: write a whole number of at least 1"),
        (PreconditionedLasso(k=1.5), "k=1.5: write a whole number of at least 1"),
        (
            PreconditionedLasso("trees"),
            "preconditioner='trees': one of identity, difference, auto_tree, peel, certified",
        ),
        (PreconditionedLasso("difference", tree="star"), "tree='star': one of chain, binary"),
        (PreconditionedLasso("difference", tree=[0, 1]), "tree of shape (2,): has to be the number of its parent"),
        (PreconditionedLasso("difference", tree=[1, 0, 1, 2, 3, 4]), "tree: has a cycle; a root's parent is -1"),
        (PreconditionedLasso(lam=-1.0), "lam=-1.0: write a number of at least 0"),
        (PreconditionedLasso(lam="best"), "lam='best': one of theory, cv"),
        (PreconditionedLasso(sigma=math.nan), "sigma=nan: write a number of at least 0"),
        (PreconditionedLasso(delta=1.0), "delta=1.0: write a number above 0 and below 1"),
        (PreconditionedLasso(tau=0), "tau=0: write a number above 0 and below 1"),
        (PreconditionedLasso(solver="lars"), "solver='lars': one of cd, fista"),
        (PreconditionedLasso(path=-1), "path=-1: write a whole number of at least 0"),
        (PreconditionedLasso(step="log"), "step='log': one of raw, unit"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_parameters_are_answered_in_one_line(estimator, line, data):
    with pytest.raises(ValueError) as caught:
        estimator.fit(*data)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_more_nonzeros_than_samples_or_too_many_supports_are_refused(rng):
    X, y = rng.normal(size=(3, 40)), np.ones(3)
    for cls in (MatchingPursuit, BestSubset):
        with pytest.raises(ValueError, match="k=4: more non-zeros than n_samples=3"):
            cls(k=4).fit(X, y)
    with pytest.raises(ValueError, match=r"k=9: n_features=40 have 273,438,880 supports, and at most 500,000"):
        BestSubset(k=9).fit(rng.normal(size=(20, 40)), np.ones(20))


@pytest.mark.parametrize("estimator", [MatchingPursuit(), LeastSquares(), BestSubset()], ids=repr)
def test_scikit_learn_accepts_it(estimator):
    check_estimator(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("routine", ROUTINES)
def test_scikit_learn_accepts_the_lasso_in_features(routine):
    """All checks; those that may be given a tree that is not the data's are tagged ``poor_score``."""
    estimator = PreconditionedLasso(routine, certify_draws=5)
    check_estimator(estimator)
    assert estimator.__sklearn_tags__().regressor_tags.poor_score == (routine in ("difference", "auto_tree"))


@pytest.mark.parametrize("name", ["preconditioned_lasso", "omp", "least_squares", "best_subset"])
def test_a_cell_is_scored_and_repeats(name, tmp_path):
    cell = [f"estimator={name}", "problem.n=12", "problem.d=16", "engine.draws=2", "trainer.threads=1"]
    plans = [plan_of([*cell, f"runs_dir={tmp_path / place}"]) for place in "ab"]
    one, other = (engine_of(plan.config).run(plan)["metrics"] for plan in plans)
    assert one == other and 0 <= one["test.error"] < 5
    assert ("test.rho_90" in one) == (name == "preconditioned_lasso")


def test_a_wide_preconditioner_falls_back_on_its_own_way_back():
    wide = Preconditioner("x", np.array([[1.0, 0, 1], [0, 1, 1]]), np.array([[1.0, 0], [0, 1], [0, 0]]))
    assert np.allclose(wide.least(np.array([1.0, 1.0])), [0, 0, 1])
    blind = Preconditioner("x", np.zeros((2, 3)), np.array([[1.0, 0], [0, 1], [0, 0]]))
    assert np.allclose(blind.least(np.array([1.0, 2.0])), [1, 2, 0])
