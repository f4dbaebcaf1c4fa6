"""Surrogates with bounded sharpness: the dossier's exact values, gradients, the dual step, COMs, and scikit-learn's checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bad_data import refused_in_one_line
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.surrogates.conservative import ConservativeRegressor
from sparselab.estimation.estimators.surrogates.evolution import Evolution
from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor
from sparselab.estimation.estimators.surrogates.losses import Gaussian, Squared
from sparselab.estimation.estimators.surrogates.network import Adam, Network
from sparselab.estimation.estimators.surrogates.optimizer import OfflineOptimizer
from sparselab.estimation.estimators.surrogates.search import GradientAscent, Reinforce
from sparselab.estimation.estimators.surrogates.sharpness import Sharpness
from sparselab.estimation.estimators.surrogates.surface import Surface, mean_gradient

SMALL = {"width": 16, "epochs": 3, "batch": 16}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4)) * [1, 2, 3, 0.5] + 5
    return X, X[:, 0] - 0.3 * X[:, 1] ** 2 + 0.1 * rng.normal(size=90)


# -- the penalty -------------------------------------------------------------------------------------------------------


def test_a_linear_prediction_has_a_constant_sharpness_and_no_correction():
    """The dossier's item: g = w.x, batch mean m: u = m, R = rho |m|, and u' = u, so nothing is added."""
    m, w = np.array([3.0, -4.0]), np.array([0.3, 0.7])
    penalty, gradient = Sharpness(lam=2.0, rho=0.5, r=0.1), np.array([1.0, 2.0])
    penalty.add(gradient, w, m, lambda _: m)
    assert gradient.tolist() == [1.0, 2.0] and penalty.norm == 5.0
    assert penalty.rho * penalty.norm == 0.5 * np.linalg.norm(m)


@pytest.mark.parametrize("r", [1e-3, 0.05, 10.0])
@pytest.mark.parametrize("w", [0.7, -0.7])
def test_of_a_square_the_correction_is_exact_for_every_length(w, r):
    """The dossier's item: g = w² x / 2, mean x = c: (rho / r)(u' - u) = rho c sign(w) = d/dw rho |w| c."""
    c, rho, at, gradient = 1.5, 0.2, np.array([w]), np.zeros(1)
    Sharpness(lam=1.0, rho=rho, r=r).add(gradient, at, at * c, lambda b: b * c)
    assert gradient[0] == pytest.approx(rho * c * np.sign(w), rel=1e-9)


def test_parameters_are_the_same_bits_after_the_perturbation():
    """The dossier's item: what is perturbed is another array."""
    rng = np.random.default_rng(0)
    vector = rng.normal(size=50).astype(np.float32)
    kept, u = vector.copy(), rng.normal(size=50).astype(np.float32)
    Sharpness(lam=1.0).add(np.zeros(50, np.float32), vector, u, lambda b: np.sin(b))
    assert vector.tobytes() == kept.tobytes()


def test_the_dual_step_uses_the_norm_of_the_old_parameters_and_the_penalty_the_old_weight():
    """The dossier's items: rho n = .35, eps .1, eta 1e-3: lam .001 -> .00125; below the budget it falls, clipped at 0."""
    penalty, gradient = Sharpness(lam=1e-3, eta=1e-3, eps=0.1, rho=0.05, r=0.05), np.zeros(1)
    penalty.add(gradient, np.array([1.0]), np.array([7.0]), lambda _: np.array([8.0]))
    assert penalty.lam == pytest.approx(0.00125, abs=1e-15)
    assert gradient[0] == pytest.approx(1e-3 * 1.0)
    for clip, last in ((False, -8e-5), (True, 0.0)):
        low = Sharpness(lam=1e-5, eta=1e-3, eps=0.1, rho=0.05, r=0.05, clip=clip)
        low.add(np.zeros(1), np.ones(1), np.array([0.2]), lambda _: np.zeros(1))
        assert low.lam == pytest.approx(last, abs=1e-18)


def test_without_a_direction_nothing_is_added_and_the_dual_step_is_taken():
    penalty, gradient = Sharpness(lam=0.5, eta=1.0, eps=0.1), np.ones(3)
    penalty.add(gradient, np.zeros(3), np.zeros(3), lambda _: np.full(3, np.nan))
    assert gradient.tolist() == [1.0, 1.0, 1.0] and penalty.lam == pytest.approx(0.4)


def test_the_correction_is_the_gradient_of_the_sharpness_for_a_short_difference():
    """Against torch's double backward through rho |grad G|: the whole parameter vector together, mean prediction only."""
    rng = np.random.default_rng(1)
    network = Network([3, 8, 8, 2], 0.3)
    vector, X = network.start(rng, np.float64) + 0.1 * rng.normal(size=network.size), rng.normal(size=(20, 3))

    def mean(b):
        return mean_gradient(network, b, X, len(X))

    found = np.zeros(network.size)
    Sharpness(lam=1.0, rho=0.05, r=1e-6).add(found, vector, mean(vector), mean)
    b = torch.tensor(vector, requires_grad=True)
    (u,) = torch.autograd.grad(by_torch(network, b, torch.tensor(X))[:, 0].mean(), b, create_graph=True)
    (exact,) = torch.autograd.grad(0.05 * u.norm(), b)
    assert mean(vector) == pytest.approx(u.detach().numpy(), abs=1e-14)
    assert found == pytest.approx(exact.numpy(), abs=1e-7)


def by_torch(network, vector, X):
    """The network's outputs, written again."""
    for number, (weights, shape, biases) in enumerate(network.places):
        X = X @ vector[weights].reshape(shape) + vector[biases]
        if number < len(network.places) - 1:
            X = torch.nn.functional.leaky_relu(X, network.slope)
    return X


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("hidden", [[], [5], [7, 4]])
def test_a_network_and_its_gradients_are_those_of_torch(hidden, slope):
    rng = np.random.default_rng(0)
    network = Network([3, *hidden, 2], slope)
    vector, X, slopes = rng.normal(size=network.size + 2), rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    seen = network.forward(vector, X)
    b, x = torch.tensor(vector, requires_grad=True), torch.tensor(X, requires_grad=True)
    out = by_torch(network, b, x)
    out.backward(torch.tensor(slopes))
    assert seen[-1] == pytest.approx(out.detach().numpy(), abs=1e-13)
    found = network.backward(vector, seen, slopes, np.full_like(vector, np.nan))
    assert found == pytest.approx(b.grad.numpy(), abs=1e-12) and (found[-2:] == 0).all()
    assert network.inputs(vector, seen, slopes) == pytest.approx(x.grad.numpy(), abs=1e-12)


def test_the_gaussian_loss_and_its_slopes_are_those_of_torch():
    """Log spread clamped softly between learned bounds that begin at log .2 and log .1; rows weighted by their counts."""
    rng = np.random.default_rng(0)
    out, y, counts = rng.normal(size=(7, 2)), rng.normal(size=7), np.array([0, 1, 2, 0, 1, 3, 1.0])
    bounds = Gaussian().bounds(np.float64)
    assert np.exp(bounds) == pytest.approx([0.2, 0.1])
    value, slopes, by_bounds = Gaussian().slopes(out, y, counts, bounds)
    o, b = torch.tensor(out, requires_grad=True), torch.tensor(bounds, requires_grad=True)
    spread = b[0] - torch.nn.functional.softplus(b[0] - o[:, 1])
    spread = b[1] + torch.nn.functional.softplus(spread - b[1])
    nll = -torch.distributions.Normal(o[:, 0], spread.exp()).log_prob(torch.tensor(y))
    loss = (torch.tensor(counts) * nll).sum() / counts.sum()
    loss.backward()
    assert value == pytest.approx(loss.item(), abs=1e-12)
    assert slopes == pytest.approx(o.grad.numpy(), abs=1e-12) and by_bounds == pytest.approx(b.grad.numpy(), abs=1e-12)
    none = np.zeros(7)
    assert not any(part.any() for part in Gaussian().slopes(out, y, none, bounds)[1:])
    assert Squared().slopes(out[:, :1], y, none, bounds)[0] == 0


def test_adam_is_that_of_keras():
    """The first step is the rate wherever the gradient is far above eps; eps is added to the root of the raw moment."""
    vector, adam = np.zeros(2), Adam(2, 0.01, np.float64)
    adam.step(vector, np.array([5.0, 1e-7]))
    root = np.sqrt(0.001) * 1e-7
    assert vector == pytest.approx([-0.01, -0.01 * np.sqrt(0.001) / 0.1 * 1e-8 / (root + 1e-7)], rel=1e-5)


def test_a_surface_has_the_members_gradients():
    rng = np.random.default_rng(0)
    network = Network([3, 6, 1], 0.3)
    surface, Z = Surface(network, rng.normal(size=(4, network.size))), rng.normal(size=(9, 3))
    step = 1e-6
    for aggregate, value in (
        ("mean", lambda Z: surface.values(Z).mean(0)),
        ("min", lambda Z: surface.values(Z).min(0)),
    ):
        found = surface.climbs(Z, aggregate)
        for column, unit in enumerate(np.eye(3)):
            slope = (value(Z + step * unit) - value(Z - step * unit)) / (2 * step)
            assert found[:, column] == pytest.approx(slope, abs=1e-7)
    one = Surface(network, surface.members[:1])
    assert (one.climbs(Z, "min") == one.climbs(Z, "mean")).all()  # with one model it is the same
    norms = [np.linalg.norm(mean_gradient(network, vector, Z, len(Z))) for vector in surface.members]
    assert surface.sharpness(Z) == pytest.approx(np.mean(norms))


# -- the regressors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        SurrogateRegressor(width=32, epochs=40, rate=1e-2, random_state=0),
        ConservativeRegressor(width=32, epochs=40, rate=1e-2, particle_steps=2, random_state=0),
        OfflineOptimizer(SurrogateRegressor(width=32, epochs=40, rate=1e-2), GradientAscent(steps=2), 4, 0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learn_accepts_it(estimator):
    check_estimator(estimator)


@pytest.mark.parametrize("learner", [SurrogateRegressor, ConservativeRegressor])
def test_with_weight_and_dual_step_zero_the_fit_is_the_baselines(learner, data):
    """The dossier's item: lam = 0 and eta = 0 give the same parameters to the bit."""
    plain = learner(sharpness="none", members=2, random_state=3, **SMALL).fit(*data)
    for sharpness, eta in (("dual", 0.0), ("fixed", 1.0)):
        found = learner(sharpness=sharpness, lam=0.0, eta=eta, members=2, random_state=3, **SMALL).fit(*data)
        assert found.surface_.members.tobytes() == plain.surface_.members.tobytes()
        assert found.lam_ == 0.0


def test_every_member_has_a_weight_of_its_own(data):
    """Each begins at lam: an ensemble's members are the surrogates that they would be alone."""
    both = SurrogateRegressor(members=2, eta=0.1, random_state=0, **SMALL).fit(*data)
    assert both.lam_ != 1e-3 and not np.array_equal(*both.surface_.members)
    alone = SurrogateRegressor(members=1, eta=0.1, bootstrap=False, random_state=0, **SMALL).fit(*data)
    again = SurrogateRegressor(members=1, eta=0.1, bootstrap=False, random_state=0, **SMALL).fit(*data)
    assert alone.lam_ == again.lam_


def test_the_penalty_lowers_the_sharpness_and_a_larger_weight_more():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 5))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    options = {"width": 32, "epochs": 20, "batch": 64, "random_state": 0, "rho": 0.2, "r": 0.2, "sharpness": "fixed"}
    sharp = [SurrogateRegressor(lam=lam, **options).fit(X, y).sharpness_on(X) for lam in (0.0, 0.3, 3.0)]
    assert sharp[0] > sharp[1] > sharp[2]
    dual = SurrogateRegressor(**{**options, "sharpness": "dual", "rho": 0.05}, eta=0.05, eps=0.05).fit(X, y)
    assert dual.sharpness_on(X) < sharp[0] and dual.lam_ > 1e-3


def test_units_of_data_do_not_matter(data):
    """Standardised inside: other units of columns and target give the same designs in those units."""
    X, y = data
    search = OfflineOptimizer(SurrogateRegressor(**SMALL), GradientAscent(steps=5), 8, 0)
    one, other = clone(search).fit(X, y), clone(search).fit(4 * X - 1, 8 * y + 2)
    assert other.designs_ == pytest.approx(4 * one.designs_ - 1, rel=1e-4)
    assert other.predict(4 * X - 1) == pytest.approx(8 * one.predict(X) + 2, rel=1e-3, abs=1e-3)


def test_held_out_rows_are_not_fitted_to(data):
    X, y = data
    found = SurrogateRegressor(validation=30, random_state=0, **SMALL).fit(X, y)
    assert np.isfinite(found.validation_error_) and found.n_iter_ == 3 * 4  # 60 rows in batches of 16
    assert np.isnan(SurrogateRegressor(random_state=0, **SMALL).fit(X, y).validation_error_)


def test_conservatism_holds_ascent_down(data):
    """With a tight limit alpha rises and the prediction gains less on the way up; the gradient is the objective's."""
    X, y = data
    options = {"width": 16, "epochs": 40, "batch": 16, "particle_steps": 5, "sharpness": "none", "random_state": 0}
    gains, alphas = [], []
    for limit in (1e3, -1e3):
        found = ConservativeRegressor(alpha=0.1, alpha_rate=0.05, limit=limit, **options).fit(X, y)
        Z = found.standardised(X)
        from sparselab.estimation.estimators.surrogates.conservative import climbed

        gains.append((found.surface_.mean(climbed(found.surface_, Z, 0.1, 5)) - found.surface_.mean(Z)).mean())
        alphas.append(found.alpha_)
    assert gains[1] < gains[0] and alphas[0] < 0.1 < alphas[1]


def test_the_conservative_gradient_is_that_of_its_objective():
    """mean (g(x) - y)² + alpha mean(g(x') - g(x)), the particles x' held still: against torch."""
    rng = np.random.default_rng(0)
    model = ConservativeRegressor(alpha=0.7, particle_rate=0.1, particle_steps=3)
    network = Network([3, 6, 1], 0.3)
    vector, X, t = rng.normal(size=network.size), rng.normal(size=(8, 3)), rng.normal(size=8)
    model._alphas, model._adam = [np.array([np.log(0.7)])], Adam(1, 0.01, np.float64)
    gradient = np.empty_like(vector)
    model._descend(network, Squared(), vector, X, t, np.ones(8), gradient)
    b, far = torch.tensor(vector, requires_grad=True), torch.tensor(X)
    for _ in range(3):
        far = far.detach().requires_grad_()
        (climb,) = torch.autograd.grad(by_torch(network, b.detach(), far).sum(), far)
        far = far + 0.1 * np.sqrt(3) * climb
    here, there = by_torch(network, b, torch.tensor(X))[:, 0], by_torch(network, b, far.detach())[:, 0]
    (((here - torch.tensor(t)) ** 2).mean() + 0.7 * (there - here).mean()).backward()
    assert gradient == pytest.approx(b.grad.numpy(), abs=1e-12)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members=0: write a whole number of at least 1"),
        ({"sharpness": "sam"}, "sharpness='sam': one of none, dual, fixed"),
        ({"loss": "mse"}, "loss='mse': one of gaussian, squared"),
        ({"rho": 0.0}, "rho=0.0: write a number above 0"),
        ({"r": -1}, "r=-1: write a number above 0"),
        ({"lam": -0.1}, "lam=-0.1: write a number of at least 0"),
        ({"eps": float("nan")}, "eps=nan: write a number of at least 0"),
        ({"slope": 1.0}, "slope=1.0: write a number of at least 0 and below 1"),
        ({"validation": 89}, "validation=89: of 90 rows 2 have to be fitted to"),
        ({"rate": 1e30}, "write a rate below 1e.30, or a smaller lam$"),
        ({"rate": 1e30, "sharpness": "none"}, "write a rate below 1e.30$"),
    ],
)
def test_bad_options_are_one_line(options, message, data):
    with pytest.raises(ValueError, match=message) as refused, np.errstate(all="ignore"):
        SurrogateRegressor(**{**SMALL, **options}).fit(*data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0: write a number above 0"),
        ({"particle_steps": 0}, "particle_steps=0: write a whole number"),
        ({"limit": float("inf")}, "limit=inf: write a number"),
        ({"alpha": 1e30}, "write a rate below 0.0003, or a smaller lam, or a smaller alpha or alpha_rate$"),
        ({"alpha": 1e30, "sharpness": "none"}, "write a rate below 0.0003, or a smaller alpha or alpha_rate$"),
    ],
)
def test_bad_conservative_options_are_one_line(options, message, data):
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        ConservativeRegressor(**{**SMALL, **options}).fit(*data)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (GradientAscent(steps=0), "steps=0: write a whole number"),
        (GradientAscent(aggregate="max"), "aggregate='max': one of mean, min"),
        (GradientAscent(steps=50, rate=1e300), "the search left all bounds: write a smaller rate"),
        (Reinforce(block=3), "block=3: 4 columns are no whole number of blocks"),
        (Reinforce(block=2), "block=2: columns 0 to 1 have 90 values, which are no letters"),
        (Reinforce(samples=1), "samples=1: write a whole number of at least 2"),
        (Evolution(sigma=0.0), "sigma=0.0: write a number above 0"),
        (GradientAscent, "search=<class .*>: write GradientAscent"),
        (SurrogateRegressor(), r"search=SurrogateRegressor\(\): write GradientAscent"),
    ],
)
def test_bad_searches_are_one_line(search, message, data):
    with pytest.raises(ValueError, match=message) as refused, np.errstate(all="ignore"):
        OfflineOptimizer(SurrogateRegressor(**SMALL), search, 8).fit(*data)
    assert "\n" not in str(refused.value)


def test_bad_data_are_one_line(data):
    refused_in_one_line(SurrogateRegressor(**SMALL), *data)
    refused_in_one_line(OfflineOptimizer(SurrogateRegressor(**SMALL)), *data)
