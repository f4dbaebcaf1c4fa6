"""The mechanisms under local privacy: noise to the digit, exact privacy, composition. Items of the paper's exact checks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sparselab.estimation.estimators.privacy.closed import LDPSparseRegressor, messages
from sparselab.estimation.estimators.privacy.gaussian import calibrate, classical, largest_mu, spent, suffices
from sparselab.estimation.estimators.privacy.iterative import LDPIHTRegressor, groups
from sparselab.estimation.estimators.privacy.ledger import Release, total
from sparselab.estimation.estimators.privacy.shrinkage import into_ball, keep_largest, lifted, mirrored, soft
from sparselab.estimation.estimators.privacy.sphere import Sphere, spread
from sparselab.estimation.problems.linear.clip import limit, shrink

# -- the Gaussian mechanism --------------------------------------------------------------------------------------------


def test_noise_of_algorithm_1_is_32_r4_log_over_epsilon_squared():
    """Item: r = 1, tau = 1, eps = 1, delta = .01 give s1^2 = s2^2 = 32 log 250 = 176.69."""
    s1, s2 = calibrate([2.0, 2.0], [0.5, 0.5], 1.0, 0.01, "gaussian")
    assert s1**2 == pytest.approx(32 * math.log(250), rel=1e-12)
    assert round(s1**2, 2) == round(s2**2, 2) == 176.69
    fitted = LDPSparseRegressor(delta=0.01, clip_x=1.0, clip_y=1.0).fit(np.eye(3), np.ones(3))
    assert fitted.noise_ == pytest.approx((s1, s2))
    r, tau, eps, delta = 2.5, 3.0, 0.7, 1e-5
    s1, s2 = calibrate([2 * r**2, 2 * r * tau], [0.5, 0.5], eps, delta, "gaussian")
    assert s1**2 == pytest.approx(32 * r**4 * math.log(2.5 / delta) / eps**2)
    assert s2**2 == pytest.approx(32 * r**2 * tau**2 * math.log(2.5 / delta) / eps**2)


def exactly_spent(eps: float, mu: float) -> float:
    """The hockey-stick divergence of N(mu, 1) from N(0, 1), by integration."""
    x = np.linspace(-40, 40 + mu, 400_001)
    return float(np.trapezoid(np.maximum(stats.norm.pdf(x, mu) - math.exp(eps) * stats.norm.pdf(x), 0), x))


@pytest.mark.parametrize(("eps", "mu"), [(0.1, 0.5), (1.0, 0.3), (1.0, 2.0), (4.0, 3.0)])
def test_the_exact_curve_is_the_integral_that_defines_it(eps: float, mu: float):
    assert spent(eps, mu) == pytest.approx(exactly_spent(eps, mu), rel=1e-5, abs=1e-12)
    assert spent(eps, 0.0) == 0 and spent(900.0, 40.0) < 1  # no overflow far out


@pytest.mark.parametrize(("eps", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (1.0, 0.3), (8.0, 1e-9)])
def test_the_analytic_noise_spends_delta_and_a_hair_less_noise_would_spend_more(eps: float, delta: float):
    mu = largest_mu(eps, delta)
    assert delta * (1 - 1e-6) < spent(eps, mu) <= delta < spent(eps, mu * (1 + 1e-6))


def summed(eps: float, mu: float) -> float:
    """The same as a sum of positive terms: the derivative by mu is the density at eps / mu - mu / 2."""
    s = np.linspace(mu / 20, mu, 200_001)
    return float(np.trapezoid(stats.norm.pdf(eps / s - s / 2), s))


@pytest.mark.parametrize(("eps", "delta"), [(1.0, 1e-6), (1e-6, 1e-40), (1e-9, 1e-20), (1e-13, 1e-20), (1e-15, 1e-40)])
def test_rounding_hides_no_part_of_what_is_spent(eps: float, delta: float):
    """Of an epsilon near the spacing of floats the curve's two terms are equal to the last digits."""
    assert summed(1.0, 2.0) == pytest.approx(spent(1.0, 2.0), rel=1e-6)
    assert summed(eps, largest_mu(eps, delta)) <= delta * (1 + 1e-6)


def test_the_classical_noise_is_enough_up_to_one_and_is_refused_where_it_is_not():
    for eps in (0.01, 0.1, 0.5, 0.99):
        for delta in (1e-9, 1e-3, 0.2):
            assert spent(eps, 1 / classical(1.0, eps, delta)) <= delta
    assert suffices(2.0, 1e-6) and not suffices(30.0, 1e-3)
    with pytest.raises(
        ValueError, match=r"^epsilon=60: the classical .* too weak for 30 a release; use mechanism='analytic'$"
    ):
        calibrate([1.0, 1.0], [0.5, 0.5], 60.0, 1e-3, "gaussian")


@pytest.mark.parametrize("mechanism", ["gaussian", "analytic", "joint"])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_two_releases_together_stay_within_the_budget(mechanism: str, share: float):
    """Accounting by composition: a user's two messages are one Gaussian release of mu = |(mu1, mu2)|, whose delta is exact."""
    eps, delta = 0.8, 1e-5
    sigmas = calibrate([2.0, 3.0], [share, 1 - share], eps, delta, mechanism)
    mu = math.hypot(2.0 / sigmas[0], 3.0 / sigmas[1])
    assert spent(eps, mu) <= delta
    if mechanism == "joint":  # nothing is wasted
        assert spent(eps, mu * (1 + 1e-6)) > delta
    other = {"gaussian": "analytic", "analytic": "joint"}.get(mechanism)
    if other:  # and each is at least as good as the one before
        assert all(
            a > b for a, b in zip(sigmas, calibrate([2.0, 3.0], [share, 1 - share], eps, delta, other), strict=True)
        )


def test_control_half_the_noise_breaks_the_budget():
    sigmas = [sigma / 2 for sigma in calibrate([2.0, 2.0], [0.5, 0.5], 0.8, 1e-5, "joint")]
    assert spent(0.8, math.hypot(2 / sigmas[0], 2 / sigmas[1])) > 1e-5


def test_sensitivities_are_reached_and_never_passed(rng):
    """2 r^2 bounds |xx^T - zz^T|_F, sqrt(2) r^2 is its largest value, 2 r tau that of |xy - zv|."""
    r, tau = 1.5, 2.0
    x, z = (shrink(rng.normal(size=(2000, 4)) * 3, r) for _ in "xz")
    apart = np.linalg.norm(x[:, :, None] * x[:, None] - z[:, :, None] * z[:, None], axis=(1, 2))
    assert apart.max() <= math.sqrt(2) * r**2 + 1e-12 < 2 * r**2
    e = r * np.eye(4)
    assert np.linalg.norm(np.outer(e[0], e[0]) - np.outer(e[1], e[1])) == pytest.approx(math.sqrt(2) * r**2)
    assert np.linalg.norm(e[0] * tau - e[0] * -tau) == pytest.approx(2 * r * tau)
    shown = [
        LDPSparseRegressor(clip_x=r, clip_y=tau, sensitivity=s, delta=0.01).fit(x, x[:, 0]) for s in ("bound", "exact")
    ]
    assert shown[0].noise_[0] == pytest.approx(math.sqrt(2) * shown[1].noise_[0])
    assert shown[0].noise_[1] == shown[1].noise_[1]


# -- the sphere --------------------------------------------------------------------------------------------------------


def test_radius_in_one_and_two_dimensions_is_randomised_response():
    """Items: d = 1, G = 1: B = (e^eps + 1) / (e^eps - 1); d = 2: pi/2 times that."""
    for eps in (0.1, 1.0, 4.0):
        ratio = (math.exp(eps) + 1) / (math.exp(eps) - 1)
        assert Sphere(1, 1.0, eps).radius == pytest.approx(ratio)
        assert Sphere(2, 1.0, eps).radius == pytest.approx(math.pi / 2 * ratio)
    assert Sphere(3, 2.0, 800.0).radius == pytest.approx(
        2 * spread(3)
    )  # the noise does not vanish, and nothing overflows
    assert spread(9) ** -1 == pytest.approx(np.abs(sphere_points(9, 400_000)[:, 0]).mean(), abs=1e-3)


def sphere_points(d: int, n: int) -> np.ndarray:
    z = np.random.default_rng(1).standard_normal((n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("length", [0.0, 0.3, 1.0])
def test_messages_lie_on_the_sphere_and_are_unbiased(d: int, length: float, rng):
    """Items: every output has norm B; E z = v; v = 0 gives mean zero."""
    mechanism = Sphere(d, 1.0, 1.0)
    v = length * sphere_points(d, 1)[0]
    sent = mechanism.privatise(np.tile(v, (200_000, 1)), rng)
    assert np.allclose(np.linalg.norm(sent, axis=1), mechanism.radius)
    assert np.allclose(sent.mean(axis=0), v, atol=5 * mechanism.radius / math.sqrt(200_000))


def test_a_vector_at_the_bound_is_always_rounded_to_itself_and_a_longer_one_is_refused(rng):
    """Item: |v| = G always aligns: the own half-sphere gets e^eps / (1 + e^eps) of the messages."""
    mechanism, v = Sphere(3, 2.0, 1.5), np.array([0.0, 2.0, 0.0])
    toward = (mechanism.privatise(np.tile(v, (100_000, 1)), rng) @ v > 0).mean()
    assert toward == pytest.approx(math.exp(1.5) / (1 + math.exp(1.5)), abs=0.005)
    with pytest.raises(ValueError, match=r"length 3 is above the bound 2: clip it first"):
        mechanism.privatise(np.full((1, 3), math.sqrt(3)), rng)


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_no_two_vectors_differ_by_more_than_e_to_the_epsilon(eps: float, rng):
    """Item: the likelihood ratio between any two inputs is at most e^eps; here from the density, and on a divided circle."""
    mechanism = Sphere(2, 1.0, eps)
    inputs = [length * np.array([math.cos(a), math.sin(a)]) for length in (0, 0.4, 1) for a in np.arange(0, 6, 0.7)]
    circle = [np.array([math.cos(a), math.sin(a)]) for a in np.arange(0.01, 6.28, 0.1)]
    densities = np.array([[mechanism.density(z, v) for z in circle] for v in inputs])
    assert (densities.max(axis=0) / densities.min(axis=0)).max() == pytest.approx(math.exp(eps))
    counts = [
        np.histogram(np.arctan2(*mechanism.privatise(np.tile(v, (60_000, 1)), rng).T[::-1]), 8, (-math.pi, math.pi))[0]
        for v in (inputs[-1], inputs[10])
    ]
    expected = [
        [
            60_000 / 8 / 50 * sum(mechanism.density(np.array([math.cos(a), math.sin(a)]), v) for a in part)
            for part in parts()
        ]
        for v in (inputs[-1], inputs[10])
    ]
    assert all(stats.chisquare(c, e).pvalue > 1e-3 for c, e in zip(counts, expected, strict=True))


def parts() -> np.ndarray:
    """50 angles in the middle of equal pieces, for each of 8 parts of the circle."""
    return (-math.pi + (np.arange(400) + 0.5) * 2 * math.pi / 400).reshape(8, 50)


# -- messages, groups, ledger ------------------------------------------------------------------------------------------


def test_every_message_has_its_own_noise_of_the_stated_size(rng):
    X, y = rng.normal(size=(4000, 3)), rng.normal(size=4000)
    squares, products = messages(X, y, (2.0, 0.5), rng)
    rows, columns = np.triu_indices(3)
    assert np.allclose((squares - X[:, rows] * X[:, columns]).std(axis=0), 2.0, rtol=0.05)
    assert np.allclose((products - X * y[:, None]).std(axis=0), 0.5, rtol=0.05)
    noise = np.column_stack([squares - X[:, rows] * X[:, columns], products - X * y[:, None]])
    assert np.abs(np.corrcoef(noise.T) - np.eye(9)).max() < 0.08


def test_the_noise_of_the_average_is_symmetric_with_deviation_s1_over_root_n():
    """Item: noisy Sxx is symmetric; its off-diagonal noise has standard deviation s1 / sqrt(n)."""
    X = np.eye(4)[np.arange(200) % 4]
    found = []
    for seed in range(300):
        estimator = LDPSparseRegressor(clip_x=1.0, clip_y=1.0, delta=0.01, simulate="aggregate", random_state=seed)
        estimator._finish = lambda xx, xy, deviation: found.append(xx)
        with pytest.raises(AttributeError, match="guarded_"):  # the rest is not looked at
            estimator.fit(X, np.zeros(200))
    found = np.array(found)
    assert (found == found.transpose(0, 2, 1)).all()
    noise = found - np.eye(4) / 4
    assert noise[:, 0, 1].std() == pytest.approx(math.sqrt(176.69 / 200), rel=0.15)
    assert noise[:, 2, 2].std() == pytest.approx(math.sqrt(176.69 / 200), rel=0.15)


@pytest.mark.parametrize(("n", "rounds"), [(10, 10), (1003, 7), (99, 1)])
def test_each_user_is_asked_in_exactly_one_round(n: int, rounds: int):
    asked = [user for start, stop in groups(n, rounds) for user in range(start, stop)]
    assert asked == list(range(n))
    sizes = [stop - start for start, stop in groups(n, rounds)]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def test_the_rounds_ask_every_user_once_and_spend_epsilon_once(rng, monkeypatch):
    """Items: each user is touched by exactly one round; the ledger's total per user is eps."""
    seen = []
    once = LDPIHTRegressor.gradients
    monkeypatch.setattr(LDPIHTRegressor, "gradients", lambda self, X, y, t: seen.extend(X[:, 0]) or once(self, X, y, t))
    X = np.column_stack([np.arange(500.0) / 500, rng.normal(size=(500, 2))])
    found = LDPIHTRegressor(epsilon=0.7, rounds=6, random_state=0).fit(X, rng.normal(size=500))
    assert sorted(seen) == list(X[:, 0])
    assert seen != list(X[:, 0])  # in an order that is drawn
    spent_ = found.privacy_spent_
    assert (spent_.epsilon, spent_.delta, len(spent_.releases)) == (0.7, 0.0, 6) and spent_.private


def test_the_ledger_adds_within_a_group_and_takes_the_largest_over_groups():
    a, b = (Release(group, "a", "gaussian", 0.5, 1e-6, 1.0, 1.0) for group in (0, 1))
    assert (total([a, a]).epsilon, total([a, a]).delta) == (1.0, 2e-6)
    assert total([a, b]).epsilon == 0.5 and total([a, a, b]).epsilon == 1.0
    voided = total([a], ["clip_x was chosen by looking at the data"])
    assert voided.epsilon == math.inf and voided.delta == 1 and not voided.private


# -- clipping and thresholds -------------------------------------------------------------------------------------------


def test_after_clipping_nothing_is_out_of_reach_directions_stay_and_what_was_inside_is_untouched(rng):
    """Items: |x| <= r, |y| <= tau; the bias is zero if no sample is clipped."""
    X, y = rng.normal(size=(300, 5)) * 2, rng.normal(size=300) * 3
    clipped, cut = limit(X, y, 2.0, 1.0)
    assert np.linalg.norm(clipped, axis=1).max() <= 2.0 + 1e-12 and np.abs(cut).max() <= 1.0
    assert np.allclose(
        clipped / np.linalg.norm(clipped, axis=1, keepdims=True), X / np.linalg.norm(X, axis=1, keepdims=True)
    )
    assert all(a is b for a, b in zip(limit(X, y, 100.0, None), (X, y), strict=True))


def test_thresholds_keep_what_they_say():
    """Item: the hard threshold keeps exactly k' entries."""
    values = np.array([0.5, -2.0, 2.0, 0.0, -1.0])
    assert soft(values, 0.75).tolist() == [0.0, -1.25, 1.25, 0.0, -0.25]
    assert keep_largest(values, 2).tolist() == [0.0, -2.0, 2.0, 0.0, 0.0]
    assert keep_largest(np.ones(5), 3).tolist() == [1, 1, 1, 0, 0]
    assert np.allclose(into_ball(np.array([3.0, 4.0]), 1.0), [0.6, 0.8]) and into_ball(values, 9.0) is values


def test_the_guard_raises_small_eigenvalues_and_says_so():
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
    raised, guarded = lifted(matrix, 0.5)
    assert guarded and np.linalg.eigvalsh(raised) == pytest.approx([0.5, 3.0])
    assert lifted(np.eye(2), 0.5)[1] is False
    assert (mirrored(np.arange(6.0), 3) == [[0, 1, 2], [1, 3, 4], [2, 4, 5]]).all()


def test_a_bound_beyond_floating_point_is_refused():
    with pytest.raises(ValueError, match=r"clip_x=1e\+200: its square is beyond floating point"):
        LDPSparseRegressor(delta=0.01, clip_x=1e200, clip_y=1.0).fit(np.eye(3), np.ones(3))
