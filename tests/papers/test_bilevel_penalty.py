"""The penalty method for two levels: closed forms, fixed points, counted calls, and what it is compared with."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from sparselab.config.compose import compose
from sparselab.core.errors import ConfigError
from sparselab.estimation.problems.levels.cleaning import Cleaning, Split, pollute
from sparselab.estimation.problems.levels.environment import Answer, Environment
from sparselab.estimation.problems.levels.penalties import Penalties
from sparselab.estimation.problems.levels.quadratic import Box, Jump, Quadratic
from sparselab.estimation.problems.problem import PROBLEMS
from sparselab.estimation.solvers.solver import SOLVERS
from sparselab.estimation.solvers.twolevel.f2sa import Settings as F2SASettings
from sparselab.estimation.solvers.twolevel.f2sa import f2sa
from sparselab.estimation.solvers.twolevel.implicit import Settings as ImplicitSettings
from sparselab.estimation.solvers.twolevel.implicit import implicit
from sparselab.estimation.solvers.twolevel.one_level import one_level
from sparselab.estimation.solvers.twolevel.penalty import Settings, double_loop, penalty_function, single_loop
from sparselab.estimation.solvers.twolevel.value_gap import Settings as GapSettings
from sparselab.estimation.solvers.twolevel.value_gap import value_gap
from sparselab.running.planning import plan_of

SIGMAS = (1.0, 0.3, 0.1, 0.03, 0.01)


def problem(name, **options):
    values = compose([f"problem={name}", "solver=bilevel_penalty"]).config["problem"]
    cls = PROBLEMS[name]
    return cls(cls.Options(**{**{k: v for k, v in values.items() if k != "name"}, **options}))


def small(name="bilevel_quadratic", **options):
    return problem(name, **{"d": 4, **({"kernel": 1} if name == "bilevel_pl" else {}), **options}).instance(0)


def behind(instance, noise=0.0, roughness=1.0, seed=0):
    return Environment(instance, np.random.default_rng(seed), noise, roughness)


def scalar(**options):
    """f = (y - 1)²/2 and g = (y - x)²/2 of the dossier."""
    one = np.ones((1, 1))
    return Quadratic(one, np.ones(1), one, np.ones(1), np.array([3.0]), np.array([[3.0], [-0.5], [0.2]]), **options)


def cleaning(rng, told=False):
    def some(n):
        labels = rng.integers(3, size=n)
        return Split.of(rng.integers(0, 100, size=(n, 4)) + 155 * np.eye(4)[labels], labels)

    train, clean = some(30), np.arange(30) % 2 == 0
    return Cleaning(train, some(12), some(9), clean, 3, 0.1, told)


def penalties(rng, l1=0.0):
    A, C = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    w = np.array([1.0, -2.0, 0.0, 0.0, 0.5])
    fit, held = (A, A @ w + rng.normal(size=30)), (C, C @ w + rng.normal(size=20))
    return Penalties(fit, held, -2.0, -6.0, 4.0, l1)


ALL = {
    "quadratic": lambda rng: small(),
    "pl": lambda rng: small("bilevel_pl"),
    "box": lambda rng: small("bilevel_box"),
    "jump": lambda rng: small_jump(),
    "cleaning": cleaning,
    "penalties": lambda rng: penalties(rng, 0.05),
}


def small_jump():
    return problem("bilevel_jump").instance(0)


def numeric(function, at, h=1e-6):
    steps = np.eye(len(at)) * h
    return np.array([(function(at + step) - function(at - step)) / (2 * h) for step in steps])


# -- problems ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_gradient_is_the_derivative_of_its_level(name, rng):
    instance = ALL[name](rng)
    x = instance.project_x(instance.x0 + 0.3 * rng.normal(size=len(instance.x0)))
    y = instance.project_y(0.4 * rng.normal(size=len(instance.y0)))
    for level in ("upper", "lower"):
        value = getattr(instance, level)
        of_x, of_y = numeric(lambda a, v=value: v(a, y), x), numeric(lambda a, v=value: v(x, a), y)
        assert np.allclose(getattr(instance, f"{level}_x")(x, y), of_x, atol=1e-6)
        assert np.allclose(getattr(instance, f"{level}_y")(x, y), of_y, atol=1e-6)


@pytest.mark.parametrize("name", ["quadratic", "cleaning", "penalties"])
def test_products_with_second_derivatives_are_derivatives_of_gradients(name, rng):
    instance = ALL[name](rng)
    x = instance.x0 + 0.1 * rng.normal(size=len(instance.x0))
    y, v = 0.4 * rng.normal(size=len(instance.y0)), rng.normal(size=len(instance.y0))
    assert np.allclose(instance.lower_yy(x, y, v), numeric(lambda a: float(instance.lower_y(x, a) @ v), y), atol=1e-6)
    assert np.allclose(instance.lower_xy(x, y, v), numeric(lambda a: float(instance.lower_y(a, y) @ v), x), atol=1e-6)


@pytest.mark.parametrize("name", ["quadratic", "pl", "box", "penalties"])
def test_the_hypergradient_is_the_derivative_of_psi(name, rng):
    instance = ALL[name](rng)
    for x in instance.probes:
        assert np.allclose(instance.gradient(x), numeric(instance.value, x), atol=1e-6)


@pytest.mark.parametrize("name", ["quadratic", "box", "cleaning", "penalties"])
def test_curvatures_bound_the_hessians(name, rng):
    instance = ALL[name](rng)
    x, y = instance.x0, instance.y0
    for gradient, bound in (
        (instance.lower_y, instance.lower_curvature(x)),
        (instance.upper_y, instance.upper_curvature),
    ):
        hessian = np.array([numeric(lambda a, i=i, g=gradient: g(x, a)[i], y) for i in range(len(y))])
        scaled = hessian / np.sqrt(np.outer(np.broadcast_to(bound, len(y)), np.broadcast_to(bound, len(y))))
        assert np.linalg.eigvalsh((scaled + scaled.T) / 2)[-1] <= 1 + 1e-6


def test_with_a_kernel_the_lower_level_has_many_minimisers_and_psi_takes_the_best_of_them(rng):
    instance = small("bilevel_pl")
    x, kernel = instance.probes[0], instance.basis[:, 0]
    best = [instance.matrix @ x + s * kernel for s in np.linspace(-9, 9, 1801)]
    assert np.allclose([instance.lower(x, y) for y in best], 0)
    assert min(instance.upper(x, y) for y in best) == pytest.approx(instance.value(x), abs=1e-4)


def test_wrong_labels_are_wrong_and_as_many_as_asked(rng):
    labels = rng.integers(10, size=101)
    for share in (0.0, 0.5, 1.0):
        assert (pollute(labels, share, 10, rng) != labels).sum() == round(share * 101)


def test_a_sampled_gradient_of_a_finite_sum_has_the_gradient_as_its_mean(rng):
    instance = cleaning(rng)
    environment, x, y = behind(instance), instance.x0, 0.1 * rng.normal(size=len(instance.y0))
    for ask in ("upper_y", "lower_x", "lower_y"):
        mean = np.mean([getattr(environment, ask)(x, y, environment.sample(10)) for _ in range(1000)], axis=0)
        exact = getattr(instance, ask)(x, y)
        assert np.abs(mean - exact).max() < 0.08 * np.abs(exact).max() + 1e-3
    assert environment.calls == 3 * 1000 * 10


# -- the penalty function (dossier: "What a test can check exactly") ---------------------------------------------------


def test_scalar_quadratic_closed_forms():
    """Item 1: y_sigma, psi_sigma, both gaps."""
    instance = scalar()
    for sigma in SIGMAS:
        for (x,) in instance.probes:
            value, gradient, y, z = penalty_function(behind(instance), np.array([x]), sigma, 1000, 1e-14)
            assert y[0] == pytest.approx((sigma + x) / (1 + sigma)) and z[0] == pytest.approx(x)
            assert value == pytest.approx((x - 1) ** 2 / (2 * (1 + sigma)))
            assert instance.value(np.array([x])) - value == pytest.approx((x - 1) ** 2 * sigma / (2 * (1 + sigma)))
            assert abs(gradient[0] - (x - 1)) == pytest.approx(abs(x - 1) * sigma / (1 + sigma))


def test_jump_example_closed_form_and_no_limit_at_zero():
    """Item 2: the piecewise formula, against a grid, against the minimisation, and the slope 1 / sigma at 0+."""
    instance, grid = small_jump(), np.linspace(-1, 1, 20001)
    for sigma in (0.3, 0.1, 0.01):
        for x in (0.0, 1e-3, sigma, -1.5 * sigma, 0.9):
            at = np.array([x])
            least = (x * grid + sigma * (x**2 + grid**2)).min()
            brute = (least - (x * grid).min()) / sigma
            assert instance.penalised(at, sigma)[0] == pytest.approx(brute, abs=1e-5)
            value, gradient, _, _ = penalty_function(behind(instance), at, sigma, 20_000, 1e-14)
            assert value == pytest.approx(instance.penalised(at, sigma)[0], abs=1e-9)
            assert np.allclose(gradient, instance.penalised(at, sigma)[1], atol=1e-7)
        near = np.array([1e-9])
        assert instance.penalised(near, sigma)[1][0] == pytest.approx(1 / sigma, rel=1e-6)
    assert instance.value(np.zeros(1)) == 0 and instance.value(np.array([1e-9])) == pytest.approx(1)


@pytest.mark.parametrize("name", ["quadratic", "pl", "box", "jump"])
def test_psi_sigma_rises_to_psi_as_sigma_falls(name, rng):
    """Item 3: non-increasing in sigma, and never above psi."""
    instance = ALL[name](rng)
    for x in instance.probes:
        values = [penalty_function(behind(instance), x, sigma, 20_000, 1e-13)[0] for sigma in SIGMAS[:3]]
        assert values[0] <= values[1] + 1e-9 and values[1] <= values[2] + 1e-9
        assert values[2] <= instance.value(x) + 1e-9


@pytest.mark.parametrize("name", ["quadratic", "pl", "box", "penalties"])
def test_danskin_gradient_is_the_derivative_of_psi_sigma(name, rng):
    """Item 4: finite differences of the minimised penalty function, and its closed form where there is one."""
    instance = ALL[name](rng)

    def at(x, sigma=0.1):
        return penalty_function(behind(instance), x, sigma, 50_000, 1e-13)

    x = instance.probes[0]
    value, gradient, _, _ = at(x)
    assert np.allclose(gradient, numeric(lambda a: at(a)[0], x, 1e-4), atol=1e-6)
    if (known := instance.penalised(x, 0.1)) is not None:
        assert value == pytest.approx(known[0]) and np.allclose(gradient, known[1], atol=1e-9)


@pytest.mark.parametrize("name", ["bilevel_quadratic", "bilevel_pl", "bilevel_box"])
def test_gaps_fall_as_sigma(name):
    """The paper's first result: values and gradients are O(sigma) apart."""
    instance, gaps = small(name, mu=0.5), []
    for sigma in (0.01, 0.001):
        found = [instance.penalised(x, sigma) for x in instance.probes]
        environment = behind(instance)
        measured = environment.measure(Answer(instance.x0, instance.y0, instance.y0, sigma, 0, found))
        gaps.append([measured["log10_value_gap"], measured["log10_gradient_gap"]])
        assert measured["value_error"] == measured["gradient_error"] == 0
    assert np.allclose(np.subtract(*gaps), 1, atol=0.05)


# -- the loops ---------------------------------------------------------------------------------------------------------

LONG = Settings(sigma=0.2, steps=400, lr_x=4.0, inner_steps=10)


@pytest.mark.parametrize("rho", [inf, 1.0])
def test_fixed_points_of_the_double_loop_are_stationary_for_psi_sigma(rho):
    """Item 5; with the proximal term as well."""
    for instance in (small(), small("bilevel_box"), scalar()):
        answer = double_loop(behind(instance), replace(LONG, rho=rho))
        _, gradient = instance.penalised(answer.x, 0.2)
        assert np.linalg.norm(gradient) < 1e-6


def test_the_single_loop_reaches_the_same_point():
    instance = small()
    answer = single_loop(behind(instance), replace(LONG, steps=3000, lr_x=0.8, inner_steps=1))
    assert np.linalg.norm(instance.penalised(answer.x, 0.2)[1]) < 1e-6


def test_momentum_that_forgets_everything_is_plain_stochastic_gradients():
    """Item 6: eta = 1 is the double loop with one inner step, sample for sample."""
    s = Settings(sigma=0.3, steps=30, lr_x=0.5, inner_steps=1, batch=3.0)
    one, other = (loop(behind(small(), noise=0.5), s) for loop in (single_loop, double_loop))
    assert (one.x == other.x).all() and (one.y == other.y).all() and (one.z == other.z).all()


def test_momentum_without_noise_is_the_exact_gradient():
    """Item 6: zero noise, any eta."""
    s = Settings(sigma=0.3, steps=30, lr_x=0.5, inner_steps=1)
    answers = [single_loop(behind(small()), replace(s, eta=eta)) for eta in (1.0, 0.1)]
    assert np.allclose(answers[0].x, answers[1].x, rtol=1e-10) and np.allclose(answers[0].y, answers[1].y, rtol=1e-10)


class Numbered:
    """The n-th sample: its errors are known functions of the point."""

    rows, sizes = None, {"upper_x": 1.0, "upper_y": -2.0, "lower_x": 3.0, "lower_y": -1.0}

    def __init__(self, n, batch):
        self.n, self.batch = n, batch

    def noise(self, what, x, y, size):
        return 0.02 * self.sizes[what] * (1 + self.n % 5) * (x + 2 * y - 1)


class Scripted(Environment):
    """The scalar quadratic behind numbered samples."""

    def __init__(self):
        super().__init__(scalar(), np.random.default_rng(0), noise=1.0)
        self.asked = 0

    def sample(self, batch):
        self.asked += 1
        return Numbered(self.asked - 1, batch)


def directions(n, sigma):
    """Those of y, z and x at a point under the n-th sample, of f = (y - 1)²/2 and g = (y - x)²/2."""

    def error(what, x, y):
        return Numbered(n, 1).noise(what, x, y, 1)

    def of_z(x, w):
        return w - x + error("lower_y", x, w)

    def of_y(x, u):
        return sigma * (u - 1 + error("upper_y", x, u)) + of_z(x, u)

    def of_x(x, u, w):
        apart = (x - u + error("lower_x", x, u)) - (x - w + error("lower_x", x, w))
        return error("upper_x", x, u) + apart / sigma

    return of_y, of_z, of_x


FOUR = Settings(0.4, 4, 0.3, lr_y=0.5, lr_z=0.4, sigma_power=0.5, rho=2.0, beta=0.7, batch=1.0)


def test_four_steps_of_two_loops_by_hand():
    """Algorithm A: T proximal steps from y and z, y and z follow by beta, x moves along the direction at u and w."""
    x, y, z, n = 3.0, 0.0, 0.0, 0
    for k in range(4):
        sigma = 0.4 * (k + 1) ** -0.5
        whole, u, w = 1 / (1 + sigma + 0.5), y, z
        for _ in range(3):
            of_y, of_z, _ = directions(n, sigma)
            u, w = u - 0.5 * whole * (of_y(x, u) + (u - y) / 2), w - 0.4 * whole * (of_z(x, w) + (w - z) / 2)
            n += 1
        y, z = y + 0.7 * (u - y), z + 0.7 * (w - z)
        x, n = x - 0.3 * sigma * directions(n, sigma)[2](x, u, w), n + 1
    answer = double_loop(Scripted(), replace(FOUR, inner_steps=3))
    assert (answer.x[0], answer.y[0], answer.z[0], answer.sigma) == pytest.approx((x, y, z, 0.2), rel=1e-12)


def test_four_steps_of_one_loop_by_hand():
    """Algorithm B: v = g(now; xi) + (1 - eta) (v before - g(before; xi)), one xi at both points, for each direction."""
    x, y, z, eta = 3.0, 0.0, 0.0, 0.3
    v_y = v_z = v_x = 0.0
    last = None
    for k in range(4):
        sigma = 0.4 * (k + 1) ** -0.5
        whole = 1 / (1 + sigma + 0.5)
        of_y, of_z, _ = directions(2 * k, sigma)
        new_y, new_z = of_y(x, y), of_z(x, z)
        if last:
            x0, y0, z0, _, _, sigma0 = last
            new_y += (1 - eta) * (v_y - directions(2 * k, sigma0)[0](x0, y0))
            new_z += (1 - eta) * (v_z - of_z(x0, z0))
        v_y, v_z = new_y, new_z
        u, w = y - 0.5 * whole * v_y, z - 0.4 * whole * v_z
        new_x = directions(2 * k + 1, sigma)[2](x, u, w)
        if last:
            x0, _, _, u0, w0, sigma0 = last
            new_x += (1 - eta) * (v_x - directions(2 * k + 1, sigma0)[2](x0, u0, w0))
        last, v_x = (x, y, z, u, w, sigma), new_x
        y, z, x = y + 0.7 * (u - y), z + 0.7 * (w - z), x - 0.3 * sigma * v_x
    answer = single_loop(Scripted(), replace(FOUR, inner_steps=1, eta=eta))
    assert (answer.x[0], answer.y[0], answer.z[0]) == pytest.approx((x, y, z), rel=1e-12)


def test_momentum_averages_noise_that_is_smooth_and_not_noise_that_is_rough():
    """Mean-squared smoothness is what the single loop lives by: the same small eta with errors that points do not share."""
    s = Settings(sigma=0.2, steps=600, lr_x=0.2, inner_steps=1, eta=0.02)
    ends = {}
    for roughness in (0.0, None):
        environments = [behind(small(), noise=0.3, roughness=roughness, seed=seed) for seed in range(3)]
        ends[roughness] = np.mean([e.stationarity(single_loop(e, s).x) for e in environments])
    assert ends[None] > 3 * ends[0.0]


def test_steps_stay_in_both_sets_and_calls_are_counted():
    """Item 7: projections, and 6 calls a single step (12 with momentum), 3 T + 3 a double one."""
    seen = []

    class Watch(Environment):
        def over(self, x):
            seen.append(x)
            return super().over(x)

        def _ask(self, what, x, y, sample):
            seen.extend([x, y])
            return super()._ask(what, x, y, sample)

    def watch(instance):
        return Watch(instance, np.random.default_rng(0), 0.5, 1.0)

    s = Settings(sigma=0.1, steps=10, lr_x=9.0, inner_steps=4, batch=2.0)
    environment = watch(small_jump())
    double_loop(environment, s)
    assert environment.calls == 10 * (3 * 4 + 3) * 2
    assert all(-1 <= value <= 1 for value in np.concatenate(seen))
    environment = watch(small_jump())
    single_loop(environment, replace(s, inner_steps=1, batch=1.0))
    assert environment.calls == 10 * 6
    environment = watch(small_jump())
    single_loop(environment, replace(s, inner_steps=1, batch=1.0, eta=0.25))
    assert environment.calls == 6 * 4 + 9 * 12  # the first gradients are means of 1 / eta samples
    assert all(-1 <= value <= 1 for value in np.concatenate(seen))


def test_f2sa_with_a_constant_multiplier_is_the_double_loop():
    """Item 8: lambda = 1 / sigma, the step of y times sigma: the same iterates."""
    sigma, instance = 0.25, small()
    step = 0.5 / (instance.lower_curvature(instance.x0) + sigma * instance.upper_curvature)
    s = Settings(sigma, steps=25, lr_x=0.5, inner_steps=3, batch=2.0)
    one = double_loop(behind(small(), noise=0.2), s)
    constant = {"power_x": 0.0, "power_y": 0.0, "power_z": 0.0, "growth": 0.0}
    other = f2sa(
        behind(small(), noise=0.2),
        F2SASettings(25, 0.5 * sigma, step * sigma, step, 1 / sigma, inner_steps=3, batch=2, **constant),
    )
    for a, b in ((one.x, other.x), (one.y, other.y), (one.z, other.z)):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_baselines_find_the_same_solution():
    instance = small(ridge=0.3)
    best = np.linalg.norm(instance.gradient(instance.x0))
    found = implicit(behind(instance), ImplicitSettings(200, 0.8, 1.0, 10, 20))
    assert np.linalg.norm(instance.gradient(found.x)) < 1e-8
    gap = value_gap(behind(instance), GapSettings(8000, 0.5, 0.5, 0.5, 1.0, 50.0, 2000))
    assert np.linalg.norm(instance.gradient(gap.x)) < 0.05 * best
    grown = f2sa(behind(instance), F2SASettings(2000, 0.2, 0.05, 0.5, growth=0.3))
    assert np.linalg.norm(instance.gradient(grown.x)) < 0.2 * best


def test_implicit_differentiation_and_the_penalty_function_agree_on_hyper_cleaning(rng):
    instance = cleaning(rng)
    x = 0.5 * rng.normal(size=len(instance.x0))
    gradient = penalty_function(behind(instance), x, 1e-4, 20_000, 1e-12)[1]
    instance.x0 = x
    step = implicit(behind(instance), ImplicitSettings(1, 1.0, 1.0, 5000, 200)).x - x
    assert np.abs(gradient + step).max() < 1e-3 * np.abs(gradient).max()


def test_weights_of_wrong_labels_fall(rng):
    instance = cleaning(rng)
    labels = instance.train.labels.copy()
    labels[~instance.clean] = (labels[~instance.clean] + 1) % 3
    instance.train = Split(instance.train.inputs, labels)
    answer = double_loop(behind(instance), Settings(0.1, 40, 500.0, inner_steps=10, batch=None))
    assert instance.judge(answer.x, answer.z)["auroc"] > 0.8
    assert (one_level(behind(instance), False, 100, 1e-8).x == 0).all()


# -- the oracle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roughness", [0.0, 1.0, None])
def test_noise_has_its_standard_deviation_and_a_batch_divides_it(roughness):
    environment, y = behind(scalar(), noise=0.6, roughness=roughness), np.array([0.4])
    for batch in (1, 9):
        errors = [environment.lower_y(y, y, environment.sample(batch))[0] for _ in range(4000)]
        assert np.std(errors) == pytest.approx(0.6 / np.sqrt(batch), rel=0.06) and abs(np.mean(errors)) < 0.04


def test_errors_of_one_sample_are_mean_squared_smooth_or_not():
    """E |error(y) - error(y')|² <= (noise * roughness)² |y - y'|² for the smooth one; twice the variance without."""
    at, apart = np.zeros(1), np.array([0.1])
    for roughness, expected in ((0.0, 0.0), (2.0, (0.5 * 2.0 * 0.1) ** 2), (None, 2 * 0.5**2)):
        environment, squares = behind(scalar(), noise=0.5, roughness=roughness), []
        for _ in range(4000):
            sample = environment.sample(1)
            errors = [environment.lower_y(np.zeros(1), y, sample)[0] - y[0] for y in (at, apart)]
            squares.append((errors[0] - errors[1]) ** 2)
        assert np.mean(squares) == pytest.approx(expected, rel=0.1, abs=1e-12)


def test_a_run_ends_by_accuracy_or_by_its_budget_and_what_diverges_is_said():
    environment = Environment(small(), np.random.default_rng(0), eps=0.2)
    answer = double_loop(environment, Settings(0.1, 5000, 0.5))
    assert environment.reached and answer.steps < 5000 and environment.measure(answer)["reached"] == 1
    environment = Environment(small(), np.random.default_rng(0), eps=1e-9, budget=330)
    assert double_loop(environment, Settings(0.1, 5000, 0.5)).steps == 10 and not environment.reached
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match="write a smaller"):
        double_loop(behind(small()), Settings(0.1, 5000, 1e4))
    with pytest.raises(ValueError, match="never exact"):
        behind(small(), noise=0.1).sample(None)


def test_accuracy_is_the_root_mean_square_of_the_hypergradient_over_the_iterates():
    """By hand, |x - 1| being the hypergradient of the scalar quadratic: not the last one, and not the least."""
    environment = Environment(scalar(), np.random.default_rng(0), eps=1.5)
    for x, mean, over in (
        (4.0, 9.0, False),
        (1.0, 4.5, False),
        (2.0, 10 / 3, False),
        (1.0, 2.5, False),
        (1.0, 2.0, True),
    ):
        assert environment.over(np.array([x])) == over == environment.reached
        scores = environment.measure(Answer(np.array([x]), np.zeros(1), np.zeros(1), 0.1, 1))
        assert scores["over_eps"] == pytest.approx(mean**0.5 / 1.5)
        assert scores.get("eps_reached") == (1.5 if over else None) and scores["reached"] == over


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["solver=implicit", "problem=bilevel_pl"], "problem=bilevel_pl solver=implicit: the lower level is not strongly"),
        (["solver=implicit", "problem=bilevel_box"], "problem=bilevel_box solver=implicit: the lower level is constrained"),
        (["solver=bilevel_penalty", "problem.noise=0.1", "solver.batch=null"], "problem.noise=0.1: this solver asks for"),
        (["solver=penalty_function", "problem.noise=0.1"], "problem.noise=0.1: this solver asks for gradients without"),
        (["solver=bilevel_penalty", "solver.variant=single"], "solver.inner_steps=10: one loop has one step"),
        (["solver=bilevel_penalty", "solver.eta=0.1"], "solver.eta=0.1 solver.eta_power=0: two loops have no momentum"),
        (["solver=bilevel_penalty", "solver.sigma=0"], "solver.sigma=0"),
        (["solver=bilevel_penalty", "problem=spread"], "problem=spread solver=bilevel_penalty: it takes a two-level"),
        (["solver=v_pbgd", "solver.gamma0=20.0"], "solver.gamma0=20: is above solver.gamma_max"),
        (["solver=v_pbgd", "solver.steps=10"], "solver.ramp=500: the weight never reaches gamma_max"),
        (["solver=one_level", "problem=hyperclean", "problem.train=60000"], "problem.train=60000 problem.validation=1000"),
        (["solver=bilevel_penalty", "problem=bilevel_pl", "problem.kernel=20"], "problem.kernel=20: nothing is left"),
        (["solver=bilevel_penalty", "problem=bilevel_jump", "engine.draws=2"], "engine.draws=2: bilevel_jump is always"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_at_once(typed, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(typed)
    found = list(map(str, refused.value.issues))
    assert any(issue.startswith(line) for issue in found), found


def test_every_solver_here_takes_two_level_problems_and_is_planned():
    here = [name for name in SOLVERS if "two-level problem" in SOLVERS[name].takes]
    assert len(here) == 6
    for name in here:
        words = [f"solver={name}", "problem=bilevel_quadratic"]
        assert plan_of(words).id == plan_of(words).id


def test_jump_and_box_are_projected():
    assert Jump(np.zeros(1), np.zeros((1, 1))).project_x(np.array([3.0])) == 1
    box = Box(np.ones(2), np.eye(2), np.zeros(2), np.zeros(2), np.zeros((1, 2)))
    assert box.project_y(np.array([-4.0, 0.5])).tolist() == [-1, 0.5]
