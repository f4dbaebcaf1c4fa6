"""Searches that climb a surrogate: gradient ascent, REINFORCE and CMA-ES, against their published equations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparselab.estimation.estimators.surrogates.evolution import Constants, Evolution, Strategies
from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor
from sparselab.estimation.estimators.surrogates.network import Network
from sparselab.estimation.estimators.surrogates.optimizer import OfflineOptimizer
from sparselab.estimation.estimators.surrogates.search import GradientAscent, Letters, Normal, Reinforce
from sparselab.estimation.estimators.surrogates.surface import Surface


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def linear(weights):
    """A surface that is ``weights`` . z."""
    return Surface(Network([len(weights), 1], 0.3), np.array([[*weights, 0.0]]))


def test_gradient_ascent_goes_along_the_gradient_by_the_rate_times_the_root_of_the_columns(rng):
    start = rng.normal(size=(5, 4))
    found = GradientAscent(steps=7, rate=0.01).run(linear([1.0, 0, -2, 0]), start, start, rng)
    assert found == pytest.approx(start + 7 * 0.01 * 2 * np.array([1, 0, -2, 0]))


def test_the_starts_are_the_best_rows_and_as_many_designs_come_back(rng):
    X = rng.normal(size=(60, 3))
    found = OfflineOptimizer(
        SurrogateRegressor(width=4, epochs=1), GradientAscent(steps=1, rate=1e-9), 5, random_state=0
    ).fit(X, -((X - 1) ** 2).sum(1))
    best = np.argsort(((X - 1) ** 2).sum(1))[:5]
    assert (found.starts_ == X[best]).all() and found.designs_ == pytest.approx(X[best], abs=1e-5)


# -- REINFORCE ---------------------------------------------------------------------------------------------------------


def test_a_normal_policy_has_the_slopes_of_its_log_density(rng):
    policy = Normal(rng.normal(size=(6, 3)), 0.2)
    drawn, slopes = policy.draw(4, rng)
    place, step = policy.place.copy(), 1e-6

    def density(place):
        return -((drawn - place) ** 2).sum(1) / 2 / 0.2**2

    for column, unit in enumerate(np.eye(3)):
        assert slopes()[:, column] == pytest.approx(
            (density(place + step * unit) - density(place - step * unit)) / (2 * step), rel=1e-5, abs=1e-5
        )


def test_a_policy_of_letters_starts_as_the_starts_are_and_has_the_slopes_of_its_log_probability(rng):
    """Only letters that a start has are ever drawn, as in the released code; slopes are one-hot minus probability."""
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    rows = codes[rng.integers(3, size=(50, 4))].reshape(50, 8)
    start = np.concatenate([codes[[0, 1, 1, 1]], codes[[2, 2, 0, 0]], codes[[0, 0, 0, 0]], codes[[0, 1, 2, 0]]], axis=1)
    policy = Letters(start, rows, 2)
    drawn, slopes = policy.draw(4000, rng)
    shares = (drawn.reshape(4000, 4, 2)[:, 0, None] == policy.values[0]).all(-1).mean(0)
    expected = (start[:, None, :2] == policy.values[0]).all(-1).mean(0)
    assert shares == pytest.approx(expected, abs=0.03) and (shares[expected == 0] == 0).all()
    assert slopes().shape == (4000, 12) and slopes().sum(1) == pytest.approx(0, abs=1e-12)
    assert slopes().mean(0) == pytest.approx(0, abs=0.03)  # the score function has mean zero
    assert (drawn[:, 4:6] == 0).all()


def test_reinforce_finds_the_best_letters_and_moves_a_mean_uphill(rng):
    codes = np.eye(3)
    rows = codes[rng.integers(3, size=(300, 4))].reshape(300, 12)
    surface = linear(np.tile([0.0, 1.0, 0.5], 4))
    found = Reinforce(rounds=300, samples=64, rate=0.1, block=3).run(surface, rows[:64], rows, rng)
    assert (found.reshape(64, 4, 3).argmax(-1) == 1).mean() > 0.95
    start = rng.normal(size=(20, 12))
    moved = Reinforce(rounds=50, samples=64, rate=0.05).run(surface, start, start, rng)
    assert surface.mean(moved).mean() > surface.mean(start).mean() + 5


# -- CMA-ES ------------------------------------------------------------------------------------------------------------


def test_constants_are_those_of_the_tutorial():
    """Table 1 of arXiv 1604.00772 for n = 10, worked out by hand: 10 candidates, 5 parents, mass 3.167."""
    c = Constants(10)
    raw = [math.log(5.5) - math.log(i) for i in range(1, 11)]
    mass = sum(raw[:5]) ** 2 / sum(w * w for w in raw[:5])
    assert c.population == 10 and c.parents == 5 and c.mass == pytest.approx(mass) == pytest.approx(3.167, abs=1e-3)
    assert c.weights[:5].sum() == pytest.approx(1) and c.weights[:2] == pytest.approx([0.4563, 0.2708], abs=1e-4)
    assert c.c_sigma == pytest.approx((mass + 2) / (mass + 15)) and c.damping == pytest.approx(1 + c.c_sigma)
    assert c.c_c == pytest.approx((4 + mass / 10) / (14 + 2 * mass / 10))
    assert c.c_1 == pytest.approx(2 / (11.3**2 + mass))
    assert c.c_mu == pytest.approx(2 * (0.25 + mass + 1 / mass - 2) / (144 + mass))
    least = min(1 + c.c_1 / c.c_mu, 1 + 2 * (sum(raw[5:]) ** 2 / sum(w * w for w in raw[5:])) / (mass + 2))
    least = min(least, (1 - c.c_1 - c.c_mu) / (10 * c.c_mu))
    assert -c.weights[5:].sum() == pytest.approx(least)


def test_an_update_is_that_of_the_tutorial_equation_by_equation(rng):
    """Three generations of two runs against the equations written out for one run at a time."""
    runs, n = 2, 4
    start = rng.normal(size=(runs, n))
    strategies = Strategies(start, 0.3)
    states = [
        {"m": m, "s": 0.3, "C": np.eye(n), "ps": np.zeros(n), "pc": np.zeros(n), "best": (np.inf, m)} for m in start
    ]
    c = strategies.constants
    for generation in range(1, 4):
        x = strategies.ask(rng)
        f = (x**2 * np.arange(1, n + 1)).sum(-1) + x[..., 0]
        strategies.tell(x, f)
        for run, state in enumerate(states):
            one_generation(state, x[run], f[run], c, generation)
            assert strategies.mean[run] == pytest.approx(state["m"], abs=1e-12)
            assert strategies.sigma[run] == pytest.approx(state["s"], abs=1e-12)
            assert strategies.covariance[run] == pytest.approx(state["C"], abs=1e-12)
            assert (strategies.least[run], *strategies.best[run]) == (state["best"][0], *state["best"][1])


def one_generation(state, x, f, c, g):
    """Equations of the tutorial's figure 6 for one run, written with loops."""
    n, values, order = x.shape[1], np.linalg.eigh(state["C"]), np.argsort(f)
    root = values[1] @ np.diag(values[0] ** -0.5) @ values[1].T
    y = [(x[i] - state["m"]) / state["s"] for i in order]
    if f[order[0]] < state["best"][0]:
        state["best"] = (f[order[0]], x[order[0]])
    step = sum(w * one for w, one in zip(c.weights[: c.parents], y, strict=False))
    state["m"] = state["m"] + state["s"] * step
    state["ps"] = (1 - c.c_sigma) * state["ps"] + np.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mass) * root @ step
    length = np.linalg.norm(state["ps"])
    h = float(length / np.sqrt(1 - (1 - c.c_sigma) ** (2 * g)) < (1.4 + 2 / (n + 1)) * c.length)
    state["pc"] = (1 - c.c_c) * state["pc"] + h * np.sqrt(c.c_c * (2 - c.c_c) * c.mass) * step
    update = sum(
        (w if w >= 0 else w * n / np.linalg.norm(root @ one) ** 2) * np.outer(one, one)
        for w, one in zip(c.weights, y, strict=True)
    )
    keep = 1 + c.c_1 * (1 - h) * c.c_c * (2 - c.c_c) - c.c_1 - c.c_mu * c.weights.sum()
    state["C"] = keep * state["C"] + c.c_1 * np.outer(state["pc"], state["pc"]) + c.c_mu * update
    state["s"] *= np.exp(c.c_sigma / c.damping * (length / c.length - 1))


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_it_converges_on_ellipsoids(condition, rng):
    """As the tutorial's figure: log-linear to 1e-8 on a sphere and on an ill-conditioned ellipsoid."""
    n = 8
    scales = condition ** np.linspace(0, 1, n)
    strategies = Strategies(np.full((3, n), 1.0), 0.5)
    for _ in range(450):
        x = strategies.ask(rng)
        strategies.tell(x, (x**2 * scales).sum(-1))
    assert (strategies.least < 1e-8).all()
    assert np.linalg.eigvalsh(strategies.covariance).min() > 0


def test_a_design_is_the_best_candidate_of_its_run(rng):
    surface, start = linear([1.0, 2.0, 0.0]), rng.normal(size=(4, 3))
    found = Evolution(rounds=20, sigma=0.5).run(surface, start, start, rng)
    assert found.shape == (4, 3) and (surface.mean(found) > surface.mean(start) + 2).all()
    with pytest.raises(ValueError, match="X has 1 column"):
        Evolution().check(1)
