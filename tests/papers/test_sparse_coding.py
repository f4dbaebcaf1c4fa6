"""Sparse coding: what the paper's rules are to the digit, descent, dictionaries, and scikit-learn's own checks."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_sample_images
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from sparselab.estimation.estimators.codes.infer import SOLVERS, Problem, after_step, safe, settle_rows, unit
from sparselab.estimation.estimators.codes.learner import SparseCoding
from sparselab.estimation.estimators.codes.thresholds import RULES, rule_of
from sparselab.estimation.problems.images.whiten import amplitude, patches, prepared, read

EVERY = [*RULES]


def made(rng, n=60, m=16, units=24):
    """Sparse combinations of unit atoms, with a little noise."""
    atoms = unit(rng.normal(size=(units, m)))
    codes = rng.normal(size=(n, units)) * (rng.random((n, units)) < 0.1)
    return codes @ atoms + 0.01 * rng.normal(size=(n, m)), atoms


# -- thresholds --------------------------------------------------------------------------------------------------------


def test_cel0_by_hand():
    """The dossier's numbers: lambda 0.5 and a step of 0.5; odd, continuous, 0 up to step sqrt(2 lambda), then the identity."""
    shrink = RULES["cel0"]().shrink
    assert shrink(np.array([0.4, 0.5, 0.8, 1.0, 3.0]), 0.5, 0.5) == pytest.approx([0, 0, 0.6, 1.0, 3.0], abs=1e-15)
    u = np.linspace(-3, 3, 6001)
    found = shrink(u, 0.5, 0.5)
    assert (found == -shrink(-u, 0.5, 0.5)).all()
    assert np.abs(np.diff(found)).max() < 2.1 * 0.001  # its slope is 1 / (1 - step) at most
    assert (found[np.abs(u) >= 1] == u[np.abs(u) >= 1]).all() and (found[np.abs(u) <= 0.5] == 0).all()


def test_soft_and_hard_by_hand():
    assert RULES["soft"]().shrink(np.array([3.0, -0.5, -4.0]), 1.0, 1.0).tolist() == [2.0, 0.0, -3.0]
    assert RULES["hard"]().shrink(np.array([1.9, 2.0, -2.0]), 4.0, 1.0).tolist() == [0.0, 2.0, -2.0]
    edge = np.sqrt(8)
    assert RULES["hard_prox"]().shrink(np.array([edge - 1e-9, edge + 1e-9]), 4.0, 1.0).tolist() == [0.0, edge + 1e-9]


def test_half_jumps_from_nothing_to_two_thirds_and_leaves_large_entries():
    shrink, edge = RULES["half"]().shrink, 54 ** (1 / 3) / 4
    assert edge == pytest.approx(0.94494, abs=1e-5)
    assert shrink(np.array([edge - 1e-9]), 1.0, 1.0) == 0
    assert shrink(np.array([edge + 1e-9]), 1.0, 1.0) == pytest.approx(2 / 3 * edge, abs=1e-6)
    assert shrink(np.array([1e4]), 1.0, 1.0) / 1e4 == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_without_a_penalty_every_rule_is_the_identity(name, rng):
    """The dossier's limit theta -> 0: up to rounding at 0, and close to it just above."""
    u = rng.normal(size=(5, 7))
    assert rule_of(name, 0.5).shrink(u, 0.0, 0.05) == pytest.approx(u, rel=1e-14)
    assert rule_of(name, 0.5).shrink(u, 1e-12, 0.05) == pytest.approx(u, abs=1e-4)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("step", [0.3, 1.0])
def test_each_rule_minimises_what_it_says(name, step):
    """Against a fine grid: ½(r - u)² + step · cost(r) is nowhere lower than at shrink(u)."""
    rule, lam, grid = rule_of(name, 0.4), 0.7, np.linspace(-4, 4, 80001)
    for u in np.linspace(-3, 3, 41):
        found = rule.shrink(np.array([u]), lam, step)
        value = 0.5 * (found - u) ** 2 + step * rule.cost(found, lam)
        assert value[0] <= (0.5 * (grid - u) ** 2 + step * rule.cost(grid, lam)).min() + 1e-9


def test_lq_at_one_half_is_half_with_half_the_weight_and_its_ends_are_l0_and_l1(rng):
    """The released half rule weighs ½|r|^½: the textbook's with half the weight."""
    u = 3 * rng.normal(size=200)
    assert rule_of("lq", 0.5).shrink(u, 0.5, 0.8) == pytest.approx(rule_of("half", 0.5).shrink(u, 1.0, 0.8), abs=1e-9)
    assert rule_of("lq", 1 - 1e-9).shrink(u, 0.5, 1.0) == pytest.approx(RULES["soft"]().shrink(u, 0.5, 1.0), abs=1e-6)
    assert rule_of("lq", 1e-9).shrink(u, 0.5, 1.0) == pytest.approx(RULES["hard_prox"]().shrink(u, 0.5, 1.0), abs=1e-6)


def test_cel0_at_a_step_of_one_is_hard_thresholding(rng):
    u = 3 * rng.normal(size=200)
    one, other = RULES["cel0"]().shrink(u, 0.5, 1.0), RULES["hard_prox"]().shrink(u, 0.5, 1.0)
    assert (one == other).all()


def test_unknown_rules_and_exponents_are_refused():
    with pytest.raises(ValueError, match="one of soft, hard"):
        rule_of("l2", 0.5)
    with pytest.raises(ValueError, match=r"a number in \(0, 1\)"):
        rule_of("lq", 1.0)


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_the_objective_never_rises_while_steps_are_short(name, rng):
    data, atoms = made(rng)
    problem = Problem(atoms, rule_of(name, 0.5), 0.05, 1 / np.linalg.norm(atoms, 2) ** 2)
    descent = SOLVERS["pg"](problem, data)
    values = [problem.objective(data, descent.codes)]
    for t in range(200):
        descent.advance(t)
        values.append(problem.objective(data, descent.codes))
    assert (np.diff(values, axis=0) <= 1e-12).all() and values[-1].sum() < 0.8 * values[0].sum()


@pytest.mark.parametrize(("name", "edge"), [("soft", 0.1), ("hard_prox", np.sqrt(0.2))])
@pytest.mark.parametrize("solver", [*SOLVERS])
def test_orthonormal_atoms_are_thresholded_entry_by_entry(name, edge, solver, rng):
    atoms = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    data = rng.normal(size=(30, 12))
    codes, _, there = settle_rows(SOLVERS[solver](Problem(atoms, rule_of(name, 0.5), 0.1, 1.0), data), 500, 1e-10)
    expected = rule_of(name, 0.5).shrink(data @ atoms.T, 0.1, 1.0)
    assert there.all() and codes == pytest.approx(expected, abs=1e-8)
    assert (codes != 0).mean() == pytest.approx((np.abs(data @ atoms.T) > edge).mean())


def test_the_three_solvers_agree_where_the_penalty_is_convex(rng):
    data, atoms = made(rng)
    problem = Problem(atoms, rule_of("soft", 0.5), 0.05, 0.1)
    one, two, three = (settle_rows(SOLVERS[name](problem, data), 20_000, 1e-9)[0] for name in ("pg", "fista", "lca"))
    assert problem.objective(data, two) == pytest.approx(problem.objective(data, one), rel=1e-6)
    assert problem.objective(data, three) == pytest.approx(problem.objective(data, one), rel=1e-6)
    assert two == pytest.approx(one, abs=1e-4) and three == pytest.approx(one, abs=1e-4)


def test_without_a_penalty_inference_is_least_squares(rng):
    data, atoms = made(rng, m=16, units=10)
    codes, _, _ = settle_rows(SOLVERS["pg"](Problem(atoms, rule_of("soft", 0.5), 1e-300, 0.3), data), 20_000, 1e-12)
    assert codes == pytest.approx(data @ np.linalg.pinv(atoms), abs=1e-6)


@pytest.mark.parametrize("solver", [*SOLVERS])
def test_a_batch_rests_at_the_step_at_which_the_spectral_norms_say_so(solver, rng):
    """The quick bounds change nothing: against the rule written out."""
    data, atoms = made(rng)
    problem = Problem(atoms, rule_of("cel0", 0.5), 0.02, 0.1)
    taken, rests = after_step(SOLVERS[solver](problem, data), 500, 1e-2)
    plain, before = SOLVERS[solver](problem, data), None
    for t in range(taken):
        before = plain.state
        plain.advance(t)
        change, size = np.linalg.norm(plain.state - before, 2), np.linalg.norm(before, 2)
        assert (change < 1e-2 * (1e-2 + size)) == (t == taken - 1)
    assert rests and 5 < taken < 500


def test_a_row_s_code_knows_nothing_of_its_company(rng):
    data, atoms = made(rng)
    problem = Problem(atoms, rule_of("soft", 0.5), 0.05, 0.1)
    together = settle_rows(SOLVERS["fista"](problem, data), 500, 1e-3)[0]
    alone = np.vstack([settle_rows(SOLVERS["fista"](problem, row[None]), 500, 1e-3)[0] for row in data])
    assert together == pytest.approx(alone, abs=1e-12)


def test_rates_fall_with_time_and_thresholds_do_not():
    problem = Problem(np.eye(2), rule_of("soft", 0.5), 1.0, 0.5, decay=50.0)
    assert [problem.rate(t) for t in (0, 100)] == [0.5, 0.5 / (1 + 0.01 * 100)]
    descent = SOLVERS["pg"](problem, np.array([[4.0, 0.0]]))
    descent.advance(100)  # half the rate, the same threshold of lam * step
    assert descent.codes.tolist() == [[0.25 * 4 - 0.5, 0.0]]


def test_a_step_that_would_diverge_is_shortened_and_no_other(rng):
    atoms = unit(rng.normal(size=(400, 8)))
    curvature = np.linalg.norm(atoms, 2) ** 2
    assert safe(atoms, 0.05, 1.9) == pytest.approx(1.9 / curvature) and 0.05 * curvature > 2
    assert safe(np.eye(8), 0.05, 1.9) == 0.05
    data = atoms[:20] * 3
    assert np.isfinite(SparseCoding(400, "soft", lam=0.1, random_state=0).fit(data).transform(data)).all()


# -- dictionaries ------------------------------------------------------------------------------------------------------


def test_one_batch_by_hand(rng):
    """Rest from zero codes, one more step, then A + h r^T (s - r A), the sum over the batch; rows of length 1."""
    data, _ = made(rng, n=20)
    estimator = SparseCoding(24, "soft", lam=0.5, step_phi=0.03, random_state=3, batch=20).fit(data)
    atoms = unit(np.random.RandomState(3).standard_normal((24, 16)))
    descent = SOLVERS["pg"](Problem(atoms, rule_of("soft", 0.5), 0.5, 0.05), data)
    taken, _ = after_step(descent, 5000, 1e-2)
    descent.advance(taken)
    expected = unit(atoms + 0.03 * descent.codes.T @ (data - descent.codes @ atoms))
    assert estimator.components_ == pytest.approx(expected, abs=1e-12) and estimator.n_iter_ == taken
    assert np.linalg.norm(estimator.components_, axis=1) == pytest.approx(1)


def test_a_batch_that_does_not_rest_moves_no_dictionary(rng):
    data, _ = made(rng, n=40)
    estimator = SparseCoding(24, "soft", lam=0.01, inner_max=2, random_state=3, batch=20).fit(data)
    assert estimator.unsettled_ == estimator.n_batches_ == 2
    assert estimator.components_ == pytest.approx(unit(np.random.RandomState(3).standard_normal((24, 16))), abs=1e-15)


@pytest.mark.parametrize("name", ["soft", "half", "hard", "cel0"])
def test_learning_lowers_the_error_and_the_target_share_is_met(name, rng):
    data, _ = made(rng, n=1500)
    options = {"penalty": name, "lam": 0.1, "target_active": 0.1, "step_phi": 0.05, "random_state": 0}
    first = SparseCoding(24, **options).fit(data[:50])
    last = SparseCoding(24, **options, passes=3).fit(data)
    assert last.score(data) > first.score(data)
    assert (last.transform(data) != 0).mean() == pytest.approx(0.1, rel=0.03)


def test_the_sum_over_a_batch_makes_a_larger_batch_a_larger_step(rng):
    """A pitfall that the card names: twice the same signals are twice the step."""
    data, _ = made(rng, n=20)
    one = SparseCoding(24, "soft", lam=0.05, step_phi=0.02, random_state=0, batch=20).fit(data)
    two = SparseCoding(24, "soft", lam=0.05, step_phi=0.01, random_state=0, batch=40).fit(np.vstack([data, data]))
    assert one.components_ == pytest.approx(two.components_, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["soft", "cel0"])
def test_512_units_of_12_by_12_pixels_are_learnt_in_less_than_a_minute(penalty):
    """25,000 whitened patches of scikit-learn's two photographs, batches of 100; seconds of the processor."""
    pictures = [picture.mean(axis=2) for picture in load_sample_images().images]
    white = prepared(pictures, "olshausen", 0.4, "isotropic")
    scale = np.sqrt(0.1) / amplitude(white)
    data = scale * patches(white, 12, 25_000, 8, np.random.default_rng(0))  # each less its mean
    began = time.process_time()
    found = SparseCoding(512, penalty, lam=0.27, step_phi=0.05, random_state=0).fit(
        data - data.mean(axis=1, keepdims=True)
    )
    assert (found.n_batches_, found.unsettled_) == (250, 0)
    assert time.process_time() - began < 60


# -- scikit-learn ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [SparseCoding(8, name, lam=0.1, batch=20, random_state=0) for name in ("soft", "half", "hard", "cel0", "lq")]
    + [SparseCoding(8, "soft", solver=solver, batch=20, random_state=0) for solver in ("fista", "lca")]
    + [SparseCoding(8, target_active=0.3, batch=20, random_state=0)],
    ids=repr,
)
def test_scikit_learn_accepts_it(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator)


def test_shapes_and_names_are_those_of_scikit_learn_s_dictionaries(rng):
    data, _ = made(rng)
    estimator = SparseCoding(24, random_state=0).fit(data)
    codes = estimator.transform(data)
    assert (codes.shape, estimator.components_.shape) == ((60, 24), (24, 16))
    assert estimator.inverse_transform(codes).shape == data.shape
    assert estimator.get_feature_names_out()[0] == "sparsecoding0"
    assert estimator.score(data) == pytest.approx(-((data - codes @ estimator.components_) ** 2).mean())
    with pytest.raises(ValueError, match="X has 16 columns, and codes have 24"):
        estimator.inverse_transform(data)
    single = clone(estimator).fit(data.astype(np.float32))
    assert single.components_.dtype == single.transform(data.astype(np.float32)).dtype == np.float32


def test_bad_data_are_one_line(rng):
    data = made(rng)[0]
    holes, fitted = data.copy(), SparseCoding(8, batch=20, random_state=0).fit(data)
    holes[3, 1] = np.nan
    for call in (SparseCoding().fit, fitted.transform, fitted.score):
        with pytest.raises(ValueError, match="contains NaN") as refused:
            call(holes)
        assert "\n" not in str(refused.value)
        with pytest.raises(TypeError, match="dense data is required"):
            call(sparse.csr_array(data))
    assert SparseCoding(8, random_state=0).fit(data[:1]).transform(data).shape == (60, 8)  # one signal is a batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "l2"}, "one of soft, hard"),
        ({"penalty": "lq", "q": 0}, r"a number in \(0, 1\)"),
        ({"solver": "adam"}, "one of pg, fista, lca"),
        ({"units": 0}, "units=0: write a whole number of at least 1"),
        ({"units": 2.5}, r"units=2.5: write a whole number of at least 1"),
        ({"batch": "20"}, "batch='20': write a whole number of at least 1"),
        ({"penalty": ["soft"]}, "one of soft, hard"),
        ({"solver": ["pg"]}, "one of pg, fista, lca"),
        ({"penalty": "lq", "q": "a"}, r"a number in \(0, 1\)"),
        ({"lam": float("inf")}, "lam=inf: write a number above 0"),
        ({"step_phi": "x"}, "step_phi='x': write a number above 0"),
        ({"target_active": "few"}, r"target_active='few': a share in \(0, 1\)"),
        ({"lam": 0}, "lam=0: write a number above 0"),
        ({"step_r": float("nan")}, "step_r=nan: write a number above 0"),
        ({"decay": 0}, "decay=0: a number above 0, or None"),
        ({"target_active": 1.5}, r"target_active=1.5: a share in \(0, 1\)"),
    ],
)
def test_bad_options_are_one_line(options, message, rng):
    with pytest.raises(ValueError, match=message) as refused:
        SparseCoding(**options).fit(made(rng)[0])
    assert "\n" not in str(refused.value)
    with pytest.raises(NotFittedError):
        SparseCoding(**options).transform(made(rng)[0])


def test_no_way_of_descent_diverges_at_the_longest_step():
    """With momentum a step of 1.9 over the curvature grows without end; each way is held below its own bound."""
    rng = np.random.default_rng(0)
    atoms = unit(rng.standard_normal((128, 64)))
    data = rng.standard_normal((40, 64))
    for solver in SOLVERS.values():
        problem = Problem(atoms, rule_of("soft", 0.5), 0.1, safe(atoms, 1.0, solver.guard))
        codes, _, there = settle_rows(solver(problem, data), 3000, 1e-4)
        assert np.isfinite(codes).all() and there.all()


def test_a_row_that_is_not_a_number_is_not_settled():
    atoms = unit(np.random.default_rng(0).standard_normal((6, 4)))
    data = np.vstack([np.ones(4), np.full(4, np.nan)])
    problem = Problem(atoms, rule_of("soft", 0.5), 0.1, safe(atoms, 0.1, SOLVERS["pg"].guard))
    assert list(settle_rows(SOLVERS["pg"](problem, data), 2000, 1e-3)[2]) == [True, False]


def test_grey_values_of_16_bits_are_read_whole(tmp_path):
    deep = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read(tmp_path / "deep.png"), deep)
