"""Private and other regressors of users: exact limits, the same law either way, bad input, scikit-learn's own checks."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from bad_data import refused_in_one_line
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.utils.estimator_checks import check_estimator

from sparselab.core.errors import ConfigError
from sparselab.estimation.estimators.privacy.closed import (
    CentralDPRegressor,
    LDPSparseRegressor,
    SoftThresholdRegressor,
)
from sparselab.estimation.estimators.privacy.gaussian import classical, largest_mu
from sparselab.estimation.estimators.privacy.iterative import IHTRegressor, LDPIHTRegressor, MomentsLasso
from sparselab.estimation.estimators.privacy.shrinkage import soft
from sparselab.estimation.estimators.privacy.sphere import spread
from sparselab.estimation.problems.linear import draw
from sparselab.estimation.problems.linear.law import Law
from sparselab.estimation.problems.linear.users import BLOCK, Drawn, Moments, Rows
from sparselab.running.engine import ENGINES
from sparselab.running.planning import engine_of, plan_of

PRIVATE = (LDPSparseRegressor, CentralDPRegressor, LDPIHTRegressor)
ALL = (*PRIVATE, SoftThresholdRegressor, IHTRegressor, MomentsLasso)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(400, 4))
    return X, X @ [0.8, 0, -0.6, 0] + 0.1 * rng.normal(size=400)


# -- limits in which the answer is known -------------------------------------------------------------------------------


def test_without_noise_threshold_and_clipping_the_closed_form_is_least_squares(data):
    """Item: noise off and lambda = 0, no clipping: nldp equals OLS."""
    ols = LinearRegression(fit_intercept=False).fit(*data).coef_
    assert np.allclose(SoftThresholdRegressor(lam=0.0).fit(*data).coef_, ols, rtol=1e-10)
    options = {"epsilon": 1e12, "clip_x": 1e2, "clip_y": 1e2, "lam": 0.0, "mechanism": "analytic", "delta": 0.1}
    for simulate in ("per_user", "aggregate"):
        found = LDPSparseRegressor(**options, simulate=simulate, random_state=0).fit(*data)
        assert np.allclose(found.coef_, ols, atol=1e-2) and not found.guarded_
    assert np.allclose(MomentsLasso(alpha=0.0).fit(*data).coef_, ols)


def test_on_orthonormal_rows_it_is_the_soft_threshold_of_the_correlations(rng):
    """Item: orthonormal X: soft(X^T y / n)."""
    X = np.linalg.qr(rng.normal(size=(50, 3)))[0] * math.sqrt(50)
    y = X @ [1.0, 0.3, 0.0] + rng.normal(size=50)
    assert np.allclose(SoftThresholdRegressor(lam=0.4).fit(X, y).coef_, soft(X.T @ y / 50, 0.4))
    assert np.allclose(MomentsLasso(alpha=0.4).fit(X, y).coef_, soft(X.T @ y / 50, 0.4))


def test_the_lasso_of_moments_is_scikit_learns(data):
    expected = Lasso(alpha=0.05, fit_intercept=False, tol=1e-12).fit(*data).coef_
    assert np.allclose(MomentsLasso(alpha=0.05).fit(*data).coef_, expected, atol=1e-8)


def test_the_levels_of_the_threshold_follow_from_assumptions_alone(data):
    """lambda = lam_scale * sqrt((s1 theta_norm)^2 + s2^2) / (kappa sqrt(n)), never of the data."""
    found = LDPSparseRegressor(random_state=0, kappa=0.5, theta_norm=2.0).fit(*data)
    s1, s2 = found.noise_
    assert found.lam_ == pytest.approx(2.0 * math.hypot(2 * s1, s2) / math.sqrt(400) / 0.5)
    assert (
        LDPSparseRegressor(random_state=1, kappa=0.5, theta_norm=2.0).fit(data[0] * 9, data[1] * 9).lam_ == found.lam_
    )
    assert LDPSparseRegressor(lam_scale=None).fit(*data).lam_ / LDPSparseRegressor().fit(*data).lam_ == pytest.approx(
        math.sqrt(2 * math.log(4)) / 2
    )
    central = CentralDPRegressor(kappa=0.5, theta_norm=2.0).fit(*data)
    assert central.lam_ == pytest.approx(found.lam_ / math.sqrt(400))


def test_the_budget_is_split_as_said_and_a_round_s_noise_covers_two_gradients_of_the_bound(data):
    """Sensitivities and budgets of every mechanism, from the fitted noise: 2 r^2 and 2 r tau, and 2 G for a round."""
    one = LDPSparseRegressor(random_state=0, delta=1e-4, split=0.2, clip_x=1.5, clip_y=2.0).fit(*data)
    assert [(r.what, r.epsilon, r.delta) for r in one.privacy_spent_.releases] == [
        ("x x^T", 0.2, pytest.approx(2e-5)), ("x y", 0.8, pytest.approx(8e-5)),
    ]  # fmt: skip
    assert one.noise_ == pytest.approx((classical(2 * 1.5**2, 0.2, 2e-5), classical(2 * 1.5 * 2.0, 0.8, 8e-5)))
    options = {"delta": 1e-4, "clip_x": 1.5, "clip_y": 2.0, "clip_residual": 0.5, "epsilon": 0.9, "random_state": 0}
    for mechanism, sigma in (("gaussian", classical(1.0, 0.9, 1e-4)), ("analytic", 1 / largest_mu(0.9, 1e-4))):
        found = LDPIHTRegressor(mechanism=mechanism, **options).fit(*data)
        assert found.noise_ == pytest.approx(2 * 1.5 * 0.5 * sigma)
        assert (found.privacy_spent_.epsilon, found.privacy_spent_.delta) == (0.9, 1e-4)
    assert LDPIHTRegressor(**options).fit(*data).noise_ == pytest.approx(1.5 * 0.5 / math.tanh(0.45) * spread(4))


def test_public_rows_take_the_place_of_x_x_and_the_whole_budget_goes_to_x_y(data, rng):
    public = rng.normal(size=(3000, 4))
    found = LDPSparseRegressor(random_state=0, delta=1e-4).fit(*data, public=public)
    (release,) = found.privacy_spent_.releases
    assert (release.what, release.epsilon, found.noise_[0]) == ("x y", 1.0, 0.0)
    assert found.noise_[1] == pytest.approx(math.sqrt(8 * 8 * 9 * math.log(1.25e4)))
    plain = LDPSparseRegressor(random_state=0, delta=1e-4).fit(*data)
    assert [r.epsilon for r in plain.privacy_spent_.releases] == [0.5, 0.5] and plain.privacy_spent_.epsilon == 1.0
    with pytest.raises(ValueError, match=r"public of shape \(3, 2\): has to be finite rows of 4 features"):
        LDPSparseRegressor().fit(*data, public=np.ones((3, 2)))


def test_iht_without_privacy_finds_the_planted_entries_and_with_endless_epsilon_the_sphere_still_makes_noise(data):
    """Item: eps to infinity: B goes to G sqrt(pi) Gamma((d+1)/2) / Gamma(d/2), so the noise does not vanish."""
    assert np.allclose(IHTRegressor().fit(*data).coef_, [0.8, 0, -0.6, 0], atol=0.03)
    found = LDPIHTRegressor(epsilon=1e3, random_state=0).fit(*data)
    assert found.noise_ == pytest.approx(math.sqrt(8) * 3 * spread(4))
    calm = LDPIHTRegressor(epsilon=1e6, mechanism="analytic", delta=0.1, rounds=5, clip_x=9.0, random_state=0).fit(
        *data
    )
    theta = np.zeros(4)
    order = np.random.default_rng(0).permutation(400)
    for start in range(0, 400, 80):  # by hand: the averages of five groups of users
        X, y = data[0][order[start : start + 80]], data[1][order[start : start + 80]]
        theta = theta - 0.5 * X.T @ np.clip(X @ theta - np.clip(y, -3, 3), -3, 3) / 80
        theta *= min(1, 1 / np.linalg.norm(theta))
    assert np.allclose(calm.coef_, theta, atol=1e-2)


@pytest.mark.parametrize("k_prime", [1, 2, 3])
def test_iht_keeps_exactly_as_many_entries_as_asked_inside_the_ball(k_prime: int, data):
    for found in (LDPIHTRegressor(k_prime=k_prime, random_state=0), IHTRegressor(k_prime=k_prime, ball=0.5)):
        coef = found.fit(*data).coef_
        assert (coef != 0).sum() == k_prime and np.linalg.norm(coef) <= 1 + 1e-12


# -- the same law, whichever way it is drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "options"), [(LDPSparseRegressor, {"lam": 0.0}), (LDPIHTRegressor, {"mechanism": "analytic", "ball": 1e9})]
)
def test_per_user_and_aggregate_noise_have_the_same_law(cls, options, rng):
    """Kolmogorov-Smirnov over 250 fits each, of the first coefficient; half the noise is told apart (control)."""
    X = rng.normal(size=(60, 2))
    y = X @ [1.0, 0.0]

    def drawn(simulate: str, first: int, epsilon: float = 0.9) -> list[float]:
        estimators = [
            cls(epsilon=epsilon, **options, delta=0.1, simulate=simulate, random_state=first + seed)
            for seed in range(250)
        ]
        return [float(e.fit(X, y).coef_[0]) for e in estimators]

    per_user, aggregate = drawn("per_user", 0), drawn("aggregate", 10_000)
    assert stats.ks_2samp(per_user, aggregate).pvalue > 0.01
    assert stats.ks_2samp(drawn("aggregate", 20_000, 9.0), aggregate).pvalue < 1e-3


@pytest.mark.parametrize(
    "law", [Law("normal", 2, 1, 0.3), Law("normal", 3, 2, 0.3, 0.5), Law("signs", 4, 2, 0.3)], ids=str
)
def test_moments_have_the_law_of_the_moments_of_rows(law: Law):
    """Means and covariances of all entries of (xx, xy), of rows one by one and drawn as moments: 1,500 of 40 users each."""
    theta = draw.parameter(law, np.random.default_rng(5))
    rng = np.random.default_rng(6)
    rows, exact = [], []
    for _ in range(1500):
        X = draw.rows(law, 40, rng)
        y = X @ theta + law.noise * rng.standard_normal(40)
        rows.append(flat(X.T @ X / 40, X.T @ y / 40))
        exact.append(flat(*draw.moments(law, theta, 40, rng)))
    one, other = np.array(rows), np.array(exact)
    error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / 1500) + 1e-9
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4.5 * error).all()
    sd = one.std(axis=0) + 1e-3
    apart = (np.cov(one.T) - np.cov(other.T)) / np.outer(sd, sd)
    assert np.abs(apart).max() < 0.25
    assert all(stats.ks_2samp(one[:, j], other[:, j]).pvalue > 1e-4 for j in (1, -1))


def flat(xx: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return np.concatenate([xx[np.triu_indices(len(xy))], xy])


def test_signs_have_exact_moments_of_their_counts():
    law = Law("signs", 5, 2, 0.0)
    theta = draw.parameter(law, np.random.default_rng(0))
    xx, xy = draw.moments(law, theta, 10**12, np.random.default_rng(1))
    assert (np.diag(xx) == 1).all() and np.allclose(xx, np.eye(5), atol=1e-5) and np.allclose(xy, xx @ theta)


def test_the_first_users_of_many_are_the_users_of_few_and_pieces_make_the_whole():
    law = Law("normal", 2, 1, 0.1)
    users = Drawn(BLOCK + 10, 2, lambda number: draw.block(law, np.ones(2), np.random.default_rng(number)))
    X = np.vstack([block for block, _ in users.blocks(0, users.n)])
    assert X.shape == (BLOCK + 10, 2)
    parts = [block for a, b in ((0, 7), (7, BLOCK + 3), (BLOCK + 3, users.n)) for block, _ in users.blocks(a, b)]
    assert (np.vstack(parts) == X).all()
    y = np.concatenate([y for _, y in users.blocks(0, users.n)])
    one, other = (SoftThresholdRegressor(lam=0.0).fit_users(u).coef_ for u in (users, Rows(X, y)))
    assert np.allclose(one, other)


def test_moments_refuse_limits_that_would_have_clipped_someone():
    law = Law("normal", 3, 1, 0.1)
    users = Moments(1000, law, np.eye(3), np.ones(3))
    with pytest.raises(ValueError, match="these moments are of users that are not clipped"):
        SoftThresholdRegressor(clip_x="typical").fit_users(users)
    assert SoftThresholdRegressor(clip_x="all", clip_y="all").fit_users(users).coef_.shape == (3,)
    far = np.random.default_rng(0).standard_normal((200_000, 3))
    assert (np.linalg.norm(far, axis=1) > 3.5).mean() <= law.escape(1, 3.5, None)  # a bound, and not a wild one
    assert law.escape(1, 3.5, None) < 0.2


# -- privacy is not claimed for what was looked at ---------------------------------------------------------------------


@pytest.mark.parametrize("cls", PRIVATE)
def test_limits_taken_from_the_data_void_the_guarantee(cls, data):
    """Not by noise: every claim is withdrawn, with the reason, whichever of the two was looked at."""
    sound = cls(random_state=0).fit(*data)
    assert sound.privacy_spent_.private and sound.privacy_spent_.epsilon == 1.0 and sound.flags_["private"]
    for options in ({"clip_x": "data"}, {"clip_y": "data"}, {"clip_x": "data", "clip_y": "data"}):
        found = cls(random_state=0, **options).fit(*data)
        assert found.privacy_spent_.epsilon == math.inf and not found.flags_["private"]
        assert found.privacy_spent_.voided == tuple(f"{name} was chosen by looking at the data" for name in options)
    assert cls(clip_x="data", random_state=0).fit(*data).clip_x_ == np.linalg.norm(data[0], axis=1).max()


@pytest.mark.parametrize("cls", PRIVATE)
@pytest.mark.parametrize("rule", ["typical", "signs", "all", 2.5])
def test_other_limits_are_the_same_for_all_data(cls, rule, data):
    one, other = (cls(clip_x=rule, random_state=0).fit(scale * data[0], data[1]) for scale in (1, 50))
    assert one.clip_x_ == other.clip_x_ and one.clip_y_ == other.clip_y_ == 3.0


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_bad_data_are_answered_in_one_line(cls, data):
    X, y = data
    refused_in_one_line(cls(), X, y)
    with pytest.raises(ValueError, match="is expecting 4 features"):
        cls().fit(X, y).predict(X[:, :2])


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("cls", [SoftThresholdRegressor, IHTRegressor])
def test_moments_beyond_all_numbers_are_no_fit(cls, data):
    with pytest.raises(ValueError, match="the second moments are too large for floats: divide the columns"):
        cls().fit(data[0] * 1e160, data[1])


BAD = [
    (PRIVATE, {"epsilon": 0}, "epsilon=0: write a number above 0"),
    (PRIVATE, {"epsilon": -1.0}, "epsilon=-1.0: write a number above 0"),
    (PRIVATE, {"epsilon": math.inf}, "epsilon=inf: write a number above 0"),
    (PRIVATE, {"epsilon": math.nan}, "epsilon=nan: write a number above 0"),
    (PRIVATE, {"epsilon": "1"}, "epsilon='1': write a number above 0"),
    (PRIVATE[:2], {"delta": 1.0}, "delta=1.0: has to be above 0 and below 1, or None for 1 / n"),
    (PRIVATE[:2], {"delta": 0}, "delta=0: has to be above 0 and below 1, or None for 1 / n"),
    (PRIVATE[2:], {"delta": 2, "mechanism": "gaussian"}, "delta=2: has to be above 0 and below 1, or None for 1 / n"),
    (PRIVATE, {"clip_x": 0.0}, "clip_x=0.0: write a number above 0"),
    (PRIVATE, {"clip_x": None}, "clip_x=None: write a number above 0"),
    (PRIVATE, {"clip_y": "most"}, "clip_y='most': one of typical, signs, all, data, or a number above 0"),
    (PRIVATE, {"mechanism": "laplace"}, "mechanism='laplace': one of "),
    (PRIVATE, {"x_scale": -1}, "x_scale=-1: write a number above 0"),
    (PRIVATE[:2], {"lam": -0.1}, "lam=-0.1: has to be 'auto' or a number, at least 0"),
    (PRIVATE[:2], {"split": 1.0}, "split=1.0: write a number above 0 and below 1"),
    (PRIVATE[:2], {"sensitivity": "l1"}, "sensitivity='l1': one of bound, exact"),
    (PRIVATE[2:], {"rounds": 0}, "rounds=0: write a whole number of at least 1"),
    (PRIVATE[2:], {"k": 1.5}, "k=1.5: write a whole number of at least 1"),
    (PRIVATE[2:], {"rounds": 401}, "rounds=401: n_samples=400 are too few, every round needs a user of its own"),
    (PRIVATE[2:], {"simulate": "aggregate"}, "simulate='aggregate': the sum of messages on a sphere has no simple law"),
    (PRIVATE[:2], {"lam": None}, "lam=None: has to be 'auto' or a number, at least 0"),
    (PRIVATE[:2], {"split": "half"}, "split='half': write a number above 0 and below 1"),
    (
        (*PRIVATE[:2], SoftThresholdRegressor),
        {"lam_scale": -1.0},
        "lam_scale=-1.0: has to be a number, at least 0, or None",
    ),
    (
        (*PRIVATE[:2], SoftThresholdRegressor),
        {"lam_scale": "a"},
        "lam_scale='a': has to be a number, at least 0, or None",
    ),
    (PRIVATE, {"epsilon": 1e-300}, "epsilon=1e-300, delta="),
    ((MomentsLasso,), {"alpha": -1.0}, "alpha=-1.0: has to be 'auto' or a number, at least 0"),
    ((MomentsLasso,), {"alpha": None}, "alpha=None: has to be 'auto' or a number, at least 0"),
    ((MomentsLasso,), {"y_scale": -1.0}, "y_scale=-1.0: write a number above 0"),
]


@pytest.mark.parametrize(("classes", "options", "line"), BAD, ids=lambda value: str(value)[:40])
def test_bad_parameters_are_answered_in_one_line(classes, options, line, data):
    for cls in classes:
        with pytest.raises(ValueError) as caught:
            cls(**options).fit(*data)
        assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (["estimator=ldp_sparse", "estimator.epsilon=0.0"],
         ["estimator.epsilon=0.0: input should be greater than 0 — of each user, above 0"]),
        (["estimator=ldp_sparse", "estimator.delta=1.0"],
         ["estimator.delta=1.0: input should be less than 1 — of each user, in (0, 1), or null: 1/n"]),
        (["estimator=ldp_sparse", "estimator.epsilon=60.0", "estimator.delta=0.001"],
         ["estimator.epsilon=60: the classical Gaussian mechanism is too weak for it — write estimator.mechanism=analytic"]),
        (["estimator=ldp_sparse", "problem=planted_moments"],
         ["estimator.simulate=per_user: moments have no single users — write aggregate"]),
        (["estimator=soft_threshold", "problem=planted_moments", "problem.design=normal", "estimator.clip=typical"],
         ["estimator.clip=typical: a user may be clipped (chance up to 1), which moments do not show — write "]),
        (["estimator=ldp_sparse", "problem=planted_moments", "estimator.simulate=aggregate", "estimator.clip=data"],
         ["estimator.clip=data: moments do not show the longest row — write estimator.clip=all"]),
        (["estimator=ldp_sparse", "problem.public=0", "estimator.public=true"],
         ["estimator.public=true: the problem has no public rows — write problem.public=20000"]),
        (["estimator=ldp_iht", "problem=planted_moments"],
         ["problem=planted_moments estimator=ldp_iht: it takes a set of users, and this is a set of moments — write "]),
        (["estimator=ldp_iht", "estimator.simulate=aggregate"],
         ["estimator.simulate=aggregate: the sum of messages on a sphere has no simple law — write per_user"]),
        (["estimator=ldp_iht", "problem.n=5"],
         ["estimator.rounds=10: there are 5 users, and each answers once — write fewer"]),
        (["estimator=lasso", "problem.k=9"], ["problem.k=9: there are 8 features — write at most 8"]),
        (["estimator=iht", "estimator.k=9"], ["estimator.k=9: there are 8 features — write at most 8"]),
        (["estimator=ldp_iht", "estimator.k_prime=9"], ["estimator.k_prime=9: there are 8 features — write at most 8"]),
        (["estimator=lasso", "problem.design=signs", "problem.correlation=0.5"],
         ["problem.correlation=0.5: signs are independent — write 0.0, or design=normal"]),
        (["estimator=lasso", "problem=planted_moments", "problem.d=21"],
         ["problem.d=21: too many patterns of signs to be counted — write at most 20"]),
        (["estimator=lasso", "problem=planted_moments", "problem.design=normal", "problem.n=8"],
         ["problem.n=8: a Wishart matrix of 9 needs more rows — write at least 9"]),
        (["estimator=lasso", "problem.public=3"],
         ["problem.public=3: so few rows have no inverse in 8 dimensions — write 0, or at least 8"]),
    ],
    ids=lambda value: " ".join(value)[:50],
)  # fmt: skip
def test_bad_requests_are_answered_while_planning(typed, lines):
    with pytest.raises(ConfigError) as refused:
        plan_of(typed)
    found = list(map(str, refused.value.issues))
    assert len(found) == len(lines) and all(map(str.startswith, found, lines)), found


# -- cells and scikit-learn --------------------------------------------------------------------------------------------

CELLS = ["ldp_sparse", "ldp_iht", "dp_central", "soft_threshold", "iht", "lasso"]


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_scored_against_the_planted_parameter_and_repeats(name: str, tmp_path):
    cell = [f"estimator={name}", "problem.n=3000", "problem.d=4", "engine.draws=2", "trainer.threads=1"]
    plans = [plan_of([*cell, f"runs_dir={tmp_path / place}"]) for place in "ab"]
    one, other = (engine_of(plan.config).run(plan)["metrics"] for plan in plans)
    assert one == other and 0 <= one["test.error"] < 2
    assert (one["test.users"], one["test.features"], one["test.nonzeros"]) == (3000, 4, 2)
    assert one.get("test.private", 0.0) == float("dp" in name)
    assert (
        plan_of([*cell, "estimator=lasso"]).parts[1].draw(0, 1).theta.tolist()
        == plans[0].parts[1].draw(0, 1).theta.tolist()
    )
    assert ENGINES["estimate"].reads == ("problem", "estimator")


def test_the_record_of_a_fit_that_looked_at_the_data_has_no_epsilon(tmp_path):
    cell = ["estimator=ldp_iht", "problem.n=500", "estimator.clip=data", f"runs_dir={tmp_path}"]
    plan = plan_of(cell)
    metrics = engine_of(plan.config).run(plan)["metrics"]
    assert metrics["test.private"] == 0 and "test.epsilon" not in metrics and "test.delta" not in metrics


@pytest.mark.parametrize(
    "estimator",
    [
        LDPSparseRegressor(), LDPSparseRegressor(simulate="aggregate", mechanism="joint"), CentralDPRegressor(),
        LDPIHTRegressor(), LDPIHTRegressor(mechanism="analytic"), SoftThresholdRegressor(), IHTRegressor(), MomentsLasso(),
    ],
    ids=repr,
)  # fmt: skip
def test_scikit_learn_accepts_it(estimator):
    """All checks. Tagged ``poor_score`` are those that cannot fit a handful of users well: the private ones, and IHT's ball."""
    check_estimator(estimator)
    poor = estimator.__sklearn_tags__().regressor_tags.poor_score
    assert poor == isinstance(estimator, (*PRIVATE, IHTRegressor))


def test_a_seed_repeats_none_does_not_and_a_fitted_one_can_be_kept(data):
    for cls in PRIVATE:
        one, again, other = (cls(random_state=seed, lam=0.0) if cls is not LDPIHTRegressor else cls(random_state=seed)
                             for seed in (0, 0, 1))  # fmt: skip
        coef = one.fit(*data).coef_
        assert (coef == again.fit(*data).coef_).all() and (coef != other.fit(*data).coef_).any()
        fresh = clone(one).set_params(random_state=None)
        assert (fresh.fit(*data).coef_ != fresh.fit(*data).coef_).any()
        kept = pickle.loads(pickle.dumps(one))
        assert (kept.predict(data[0]) == one.predict(data[0])).all() and kept.privacy_spent_ == one.privacy_spent_
