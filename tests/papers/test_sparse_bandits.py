"""Misspecified sparse bandits: the instances, the designs, the net and its guarantee."""

from __future__ import annotations

import numpy as np
import pytest

from sparselab.estimation.problems.bandits import instances
from sparselab.estimation.problems.bandits.bandit import Answer, Bandit
from sparselab.estimation.problems.problem import PROBLEMS
from sparselab.estimation.solvers.linear import net
from sparselab.estimation.solvers.linear.design import optimal_design
from sparselab.estimation.solvers.linear.elimination import Net, eliminate
from sparselab.estimation.solvers.linear.fit import best_subset, lasso, lasso_penalty, least_squares
from sparselab.estimation.solvers.solver import SOLVERS

USUAL = {
    "elimination": {"eta": None, "tol": None, "delta_p": 0.05, "max_candidates": 5_000_000},
    "gopt_ls": {"factor": 2.0, "budget": None, "times": 1, "persist": False},
    "lasso": {"factor": 2.0, "budget": None, "times": 1, "persist": False, "penalty": None},
    "best_subset": {"factor": 2.0, "budget": None, "times": 1, "persist": False, "max_supports": 100_000},
    "uniform": {"budget": None, "times": 1},
    "phased": {"factor": 2.0, "times": 1, "phases": 20},
}


def solver(name, **options):
    cls = SOLVERS[name]
    return cls(cls.Options(**{**USUAL[name], **options}))


def problem(name, **options):
    cls = PROBLEMS[name]
    return cls(cls.Options(**{"s": 1, "eps": 0.15, "noise": 0.0, **options}))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# -- environments ------------------------------------------------------------------------------------------------------


def test_rewards_beyond_eps_are_no_bandit():
    with pytest.raises(ValueError, match="above eps"):
        Bandit(np.eye(2), np.array([0.5, 0.2]), np.array([0.5, 0.0]), eps=0.1, s=1)
    with pytest.raises(ValueError, match="unit ball"):
        Bandit(2 * np.eye(2), np.zeros(2), np.zeros(2), eps=0.1, s=1)


def test_a_repeated_query_is_free_without_noise_and_counts_with_it(rng):
    for noise, expected in ((0.0, 2), (1.0, 5)):
        bandit = Bandit(np.eye(3), np.array([0.0, 0.5, 0.1]), np.array([0.0, 0.5, 0.1]), 0.1, 2, noise, rng)
        bandit.query(0)
        bandit.query(0)
        bandit.query(1, times=3)
        assert bandit.queries == expected
        assert bandit.measure(Answer(2, gap=0.8))["position"] == (2 if not noise else 3)
        assert bandit.measure(Answer(2, gap=0.8))["gap_of_bound"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spread", {"d": 16, "s": 2, "n_actions": 50}),
        ("needle", {"d": 32, "s": 24, "n_actions": None, "coherence": 0.75}),
        ("random_bandit", {"d": 8, "s": 2, "n_actions": 40}),
        ("diabetes_bandit", {"s": 2, "n_actions": 300}),
        ("digits_bandit", {"s": 3, "n_actions": 300}),
    ],
)
def test_every_instance_is_within_eps_and_decided_by_its_place(name, options):
    made = problem(name, **options)
    assert made.issues() == []
    one, same, other = made.draw(0, 1), made.draw(0, 1), made.draw(0, 2)
    assert (one.features == same.features).all() and (one._rewards == same._rewards).all()
    assert not np.array_equal(one._rewards, other._rewards)
    assert one.features.shape == (made.actions(), made.d)
    assert np.abs(one._rewards - one.features @ one._theta).max() <= 0.15 + 1e-12
    assert np.count_nonzero(one._theta) <= options["s"] and np.linalg.norm(one._theta) <= 1 + 1e-9


def test_needles_are_apart_and_only_one_is_worth_something():
    bandit = problem("needle", d=40, s=32, n_actions=None, coherence=0.75).draw(0)
    gram = np.abs(bandit.features @ bandit.features.T - np.eye(len(bandit.features)))
    assert gram.max() <= 0.75 and len(bandit.features) == instances.packing_size(32, 0.75) == 90
    assert sorted(bandit._rewards)[-2:] == [0, 0.15 / 0.75]


def test_what_cannot_be_is_refused():
    assert problem("spread", d=4, s=5, n_actions=9).issues()[0].fix == "write at most 4"
    assert problem("needle", d=8, s=8, n_actions=2, coherence=0.1).issues()[0].fix == "write at most 0.1"
    assert problem("diabetes_bandit", n_actions=443).issues()
    with pytest.raises(ValueError, match="were found"):
        problem("needle", d=2, s=2, n_actions=5, coherence=0.5).draw(0)
    refused = solver("elimination").issues(problem("spread", d=100, s=3, eps=0.05, n_actions=9))
    assert "candidates" in refused[0].problem
    assert solver("best_subset").issues(problem("spread", d=100, s=8, n_actions=9))


# -- designs and estimates ---------------------------------------------------------------------------------------------


def test_a_design_sums_to_one_and_reaches_the_rank_at_the_optimum(rng):
    features = rng.normal(size=(80, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    loose, tight = optimal_design(features), optimal_design(features, 1.001)
    for design in (loose, tight):
        assert design.weights.sum() == pytest.approx(1) and (design.weights > 0).all()
        assert len(set(design.actions.tolist())) == len(design.actions) <= 80
        assert design.spread >= 6 * (1 - 1e-9)  # never below the rank
    assert loose.spread <= 12 and tight.spread <= 6.01
    assert len(loose.actions) <= 6 * 7 / 2
    assert optimal_design(np.pad(features, ((0, 0), (0, 3)))).rank == 6  # columns that are always zero


def test_on_the_basis_least_squares_believes_what_it_sees_and_adds_errors_up(rng):
    d, eps = 16, 0.15
    bandit = problem("spread", d=d, n_actions=30).draw(0)
    design = optimal_design(bandit.features)
    assert sorted(design.actions.tolist()) == list(range(d)) and np.allclose(design.weights, 1 / d)
    a = np.ones(d) / np.sqrt(d)
    theta = rng.normal(size=d)
    theta_hat = least_squares(np.eye(d), theta + eps * np.sign(a), np.full(d, 1 / d))
    assert np.allclose(theta_hat, theta + eps * np.sign(a))
    assert a @ (theta_hat - theta) == pytest.approx(eps * np.sqrt(d))


def test_lasso_gives_nothing_for_what_eps_alone_could_have_made(rng):
    features, weights = rng.normal(size=(30, 8)), rng.dirichlet(np.ones(30))
    penalty = lasso_penalty(features, weights, 0.15)
    assert (lasso(features, 0.15 * rng.choice([-1.0, 1.0], 30), weights, penalty) == 0).all()
    basis = lasso(
        np.eye(4), np.array([1.0, 0.15, -0.15, 0.1]), np.full(4, 0.25), lasso_penalty(np.eye(4), np.full(4, 0.25), 0.15)
    )
    assert np.allclose(basis, [0.85, 0, 0, 0], atol=1e-6)  # soft thresholding at eps


def test_best_subset_finds_an_exact_support(rng):
    theta = np.zeros(9)
    theta[[2, 7]] = (0.6, -0.8)
    features = rng.normal(size=(20, 9))
    assert np.allclose(best_subset(features, features @ theta, np.full(20, 0.05), 2), theta, atol=1e-6)


# -- the net -----------------------------------------------------------------------------------------------------------


def test_the_net_of_three_dimensions_by_hand():
    assert net.spacing(1, 0.25) == 0.5
    made = Net(np.eye(3), 1, 0.25, 0.5)
    thetas = {tuple(made.theta(i, 3)) for i in range(len(made))}
    expected = {(0.0, 0.0, 0.0)} | {
        tuple(v if k == axis else 0.0 for k in range(3)) for axis in range(3) for v in (-1.0, -0.5, 0.5, 1.0)
    }
    assert thetas == expected and len(made) == 13 == net.net_size(3, 1, 0.25, 0.5)


@pytest.mark.parametrize(("d", "s", "eps"), [(5, 2, 0.25), (6, 3, 0.4), (4, 1, 0.1)])
def test_every_sparse_parameter_has_a_neighbour_within_eps(d, s, eps, rng):
    made = Net(np.eye(d), s, eps, net.spacing(s, eps))
    assert len(made) == net.net_size(d, s, eps, net.spacing(s, eps))
    thetas = np.array([made.theta(i, d) for i in range(len(made))])
    for number in range(200):
        theta = np.zeros(d)
        theta[rng.choice(d, s, replace=False)] = rng.normal(size=s)
        theta /= np.linalg.norm(theta) * (1 if number % 2 else rng.uniform(1, 4))  # half of them on the sphere
        assert np.linalg.norm(thetas - theta, axis=1).min() <= eps + 1e-12
    assert (made.best == thetas.max(axis=1)).all()


@pytest.mark.parametrize(("env", "d", "s"), [("spread", 16, 1), ("spread", 16, 2), ("random_bandit", 12, 2)])
def test_elimination_stays_within_four_eps_and_never_removes_the_true_neighbour(env, d, s):
    for number in range(5):
        bandit = problem(env, d=d, s=s, n_actions=60).draw(number)
        candidates = Net(bandit.features, s, bandit.eps, net.spacing(s, bandit.eps))
        answer, alive = eliminate(bandit, candidates, 2 * bandit.eps, 1)
        errors = np.array([
            np.abs(bandit.features @ (candidates.theta(i, d) - bandit._theta)).max() for i in range(len(candidates))
        ])  # fmt: skip
        assert errors.min() <= bandit.eps and alive[errors <= bandit.eps].all()
        scores = bandit.measure(answer)
        assert scores["gap_eps"] <= 4 and scores["queries"] <= len(candidates)


def test_with_theta_on_the_grid_and_no_error_elimination_is_right(rng):
    features = rng.normal(size=(50, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    theta = np.zeros(6)
    theta[[1, 4]] = (0.5, -0.25)
    bandit = Bandit(features, features @ theta, theta, eps=1e-9, s=2)
    answer, _ = eliminate(bandit, Net(features, 2, 1e-9, 0.25), 1e-9, 1)
    assert bandit.measure(answer)["gap"] == 0


def test_permuted_and_flipped_coordinates_change_neither_gap_nor_queries(rng):
    for number in range(5):
        bandit = problem("random_bandit", d=8, s=2, n_actions=40).draw(number)
        order, signs = rng.permutation(8), rng.choice([-1.0, 1.0], 8)
        other = Bandit((bandit.features * signs)[:, order], bandit._rewards, (bandit._theta * signs)[order], 0.15, 2)
        both = [b.measure(solver("elimination").solve(b, np.random.default_rng(0))) for b in (bandit, other)]
        assert both[0]["gap"] == both[1]["gap"] and both[0]["queries"] == both[1]["queries"]


# -- solvers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gopt_ls", "lasso", "best_subset", "uniform", "phased", "elimination"])
def test_a_solver_is_decided_by_its_generator(name):
    made = problem("spread", d=9, s=1, n_actions=20)
    first, again = (made.draw(0) for _ in range(2))
    scores = [b.measure(solver(name).solve(b, np.random.default_rng(3))) for b in (first, again)]
    assert scores[0] == scores[1]


def test_least_squares_stays_within_its_own_promise():
    for number in range(5):
        bandit = problem("spread", d=25, n_actions=60).draw(number)
        scores = bandit.measure(solver("gopt_ls").solve(bandit, np.random.default_rng(0)))
        assert scores["gap_of_bound"] <= 1 and scores["queries"] == 25
        assert scores["gap_bound_eps"] == pytest.approx(2 * (1 + 5))


@pytest.mark.parametrize("name", ["gopt_ls", "lasso", "phased", "uniform"])
def test_before_the_needle_is_queried_every_answer_is_as_bad(name):
    made = problem("needle", d=24, s=24, n_actions=None, coherence=0.75)
    few = {"budget": 5} if name != "phased" else {"phases": 1}
    for number in range(6):
        bandit = made.draw(number)
        scores = bandit.measure(solver(name, **few).solve(bandit, np.random.default_rng(number)))
        assert scores["found"] or scores["gap"] == pytest.approx(0.15 / 0.75)


@pytest.mark.parametrize("name", ["gopt_ls", "lasso", "uniform"])
def test_looking_for_the_needle_takes_half_of_the_actions(name):
    made = problem("needle", d=24, s=24, n_actions=None, coherence=0.75)
    options = {} if name == "uniform" else {"persist": True}
    positions = []
    for number in range(60):
        bandit = made.draw(number)
        scores = bandit.measure(solver(name, **options).solve(bandit, np.random.default_rng(number)))
        assert scores["gap"] == 0 and scores["queries"] == 29
        positions.append(scores["position"])
    assert np.mean(positions) == pytest.approx(15, abs=4 * 29 / np.sqrt(12 * 60))  # uniform on 1 .. 29


def test_noise_costs_repeats_and_more_gap():
    bandit = problem("spread", d=6, n_actions=10, eps=0.4, noise=1.0).draw(0)
    scores = bandit.measure(solver("elimination").solve(bandit, np.random.default_rng(0)))
    assert scores["queries"] > 50 and scores["gap_bound_eps"] == pytest.approx(5) and scores["gap_of_bound"] <= 1


def test_positive_signs_change_nothing_else_of_the_spread_instance():
    """With a positive theta the best action is worth 1 - eps; with a negative one, in the same draw, about eps."""
    drawn, positive = (problem("spread", d=16, n_actions=40, signs=signs) for signs in ("random", "positive"))
    worth = []
    for seed in range(8):
        (features, rewards, theta), (same, others, upright) = (
            p.instance(np.random.default_rng(seed)) for p in (drawn, positive)
        )
        assert (features == same).all() and (np.abs(theta) == upright).all() and upright.max() == 1
        assert others.max() == pytest.approx(1 - 0.15) and np.abs(others - same @ upright).max() <= 0.15 + 1e-12
        if theta.min() < 0:
            worth.append(float(rewards[:16].max()))
        else:
            assert (rewards == others).all()
    assert worth and max(worth) == pytest.approx(0.15)
