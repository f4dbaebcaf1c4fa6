"""When masks are made and how far they go, at exact times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import validate
from sparselab.core.sparsity import Sparsity
from sparselab.weights.patterns.kinds.n_of_m import NOfM
from sparselab.weights.schedules import SCHEDULES, Schedule

RAMPS = ("linear", "cubic", "cosine")


def make(name: str, **options) -> Schedule:
    cls = SCHEDULES[name]
    return cls(validate(cls.Options, options, "schedule"))


def toward(sparsity: str, name: str, **options) -> Schedule:
    cls = SCHEDULES[name]
    return cls(validate(cls.Options, options, "schedule"), Sparsity.parse(sparsity))


def lines(schedule: Schedule, total: int) -> list[str]:
    return [str(issue) for issue in schedule.issues(total)]


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_cubic_has_the_papers_values():
    cubic = make("cubic", begin=0.0, end=1.0, every=1)
    sparsity = [0.9 * cubic.level(step, 100) for step in (0, 25, 50, 75, 100, 150)]
    assert sparsity == pytest.approx([0.0, 0.5203125, 0.7875, 0.8859375, 0.9, 0.9], abs=1e-15)
    assert make("cubic", begin=0.0, end=1.0, every=1, power=1.0).level(25, 100) == 0.25


def test_cubic_is_steep_at_first_and_flat_at_last():
    """The rate of pruning is 3 (s_f - s_i) / (n dt) at t0 and falls to 0 at the end; with exponent 1 it is constant."""
    total = 10**6
    cubic, line = make("cubic", begin=0.0, end=1.0, every=1), make("cubic", begin=0.0, end=1.0, every=1, power=1.0)
    rates = [total * (cubic.level(step + 1, total) - cubic.level(step, total)) for step in (0, total // 2, total - 1)]
    assert rates == pytest.approx([3, 3 / 4, 0], abs=1e-5)
    assert [line.level(step, 100) for step in range(101)] == pytest.approx([step / 100 for step in range(101)])


def test_cubic_over_epochs_as_distiller_counts_them():
    """IntelLabs/distiller, start 1, end 25, every 3 epochs: the span is ((25 - 1 - 1) // 3) * 3 = 21 epochs, so s is s_i
    at epoch 1 and s_f at epoch 22. In fractions of 25 epochs that is a ramp from 0.04 to 0.88."""
    cubic = make("cubic", begin=0.04, end=0.88, every=3)
    assert cubic.updates(25) == [1, 4, 7, 10, 13, 16, 19, 22]
    assert [cubic.level(epoch, 25) for epoch in cubic.updates(25)] == pytest.approx(
        [1 - (1 - (epoch - 1) / 21) ** 3 for epoch in range(1, 23, 3)]
    )
    assert (cubic.level(1, 25), cubic.level(22, 25), cubic.level(24, 25)) == (0.0, 1.0, 1.0)


def test_updates_at_begin_and_every_interval_after_it():
    assert make("cubic", begin=0.1, end=0.7, every=15).updates(100) == [10, 25, 40, 55, 70]
    assert make("linear", begin=0.0, end=0.5, every=50).updates(100) == [0, 50]


def test_the_last_interval_is_shortened_so_that_the_end_is_exact():
    linear = make("linear", begin=0.1, end=0.5, every=15)
    assert linear.updates(100) == [10, 25, 40, 50]
    assert [linear.level(step, 100) for step in (9, 10, 24, 25, 40, 49, 50, 99)] == [
        0, 0, 0, 0.375, 0.75, 0.75, 1, 1,
    ]  # fmt: skip


def test_cosine_is_symmetric():
    cosine = make("cosine", begin=0.0, end=1.0, every=1)
    assert [cosine.level(step, 100) for step in (0, 25, 50, 75)] == pytest.approx([0, 0.1464466094, 0.5, 0.8535533906])


def test_rounds_take_the_same_share_of_what_remains():
    """The paper's grid: 0.2097 of the weights are seven rounds, 0.0092 twenty-one; a density between two asks for one more."""
    for density, rounds in ((0.2097, 7), (0.055, 13), (0.0225, 17), (0.0092, 21), (0.1, 11), (0.01, 21)):
        assert next(r for r in range(99) if 0.8**r <= density * 1.005) == rounds
    seven = make("rounds", rounds=7)
    assert seven.updates(80) == [10, 20, 30, 40, 50, 60, 70]
    left = [1 - seven.level(step, 80) * (1 - 0.8**7) for step in (9, 10, 19, 20, 70, 80)]
    assert left == pytest.approx([1, 0.8, 0.8, 0.64, 0.8**7, 0.8**7])
    assert lines(make("rounds", rounds=9), 9) == ["schedule.rounds=9: 10 parts of 9 updates — at most 8"]


def test_one_shot():
    shot = make("one_shot", at=0.25)
    assert shot.updates(10) == [3]  # 2.5 rounds up
    assert [shot.level(step, 10) for step in (0, 2, 3, 10)] == [0, 0, 1, 1]
    assert make("one_shot", at=0.0).updates(10) == [0] and make("one_shot", at=0.0).level(0, 10) == 1
    assert make("one_shot", at=1.0).updates(10) == [10]


def test_constant():
    constant = make("constant")
    assert constant.updates(10) == [0] and constant.level(0, 10) == 1.0
    assert constant.fraction(5, 10) == 0.0 and lines(constant, 10) == []


@pytest.mark.parametrize(
    "decay, quarter, half", [("cosine", 0.15 * (1 + 0.5**0.5), 0.15), ("linear", 0.225, 0.15), ("constant", 0.3, 0.3)]
)
def test_periodic_exchanges_less_and_less(decay, quarter, half):
    periodic = make("periodic", every=100, stop=0.8, fraction=0.3, decay=decay)
    assert periodic.updates(1000) == [0, 100, 200, 300, 400, 500, 600, 700]  # 0 < step < stop * total
    assert periodic.fraction(0, 1000) == pytest.approx(0.3)
    assert periodic.fraction(200, 1000) == pytest.approx(quarter)
    assert periodic.fraction(400, 1000) == pytest.approx(half)
    assert periodic.fraction(800, 1000) == periodic.fraction(999, 1000) == 0.0
    assert {periodic.level(step, 1000) for step in (0, 1, 500, 1000)} == {1.0}


def test_periodic_stops_before_a_fractional_end():
    assert make("periodic", every=1, stop=0.75).updates(10) == [0, 1, 2, 3, 4, 5, 6, 7]  # 7.5
    assert make("periodic", every=3, stop=0.9).updates(10) == [0, 3, 6]  # 9 is the end


# -- progressive gradient flow, arXiv 2402.04744 ------------------------------------------------------------------------


def test_a_linear_mask_decay_falls_to_zero_and_stays():
    decay = make("mask_linear", coef=0.01, end=1.0)
    assert [decay.soft_coefficient(step, 200) for step in (0, 50, 100, 150)] == [1, 0.5, 0, 0]
    assert lines(decay, 200) == [] and decay.updates(200) == [0, 100, 200]
    relative = make("mask_linear", begin=0.1, end=0.6)
    assert [relative.soft_coefficient(step, 100) for step in (10, 35, 59, 60, 100)] == pytest.approx(
        [1, 0.5, 0.02, 0, 0]
    )
    assert [relative.level(step, 100) for step in (0, 9, 10, 100)] == [0, 0, 1, 1]


def test_an_exponential_mask_decay_multiplies():
    decay = make("mask_exp", rate=11.0)
    for one, two in ((1, 2), (10, 35), (20, 79)):
        assert decay.soft_coefficient(one + two, 100) == pytest.approx(
            decay.soft_coefficient(one, 100) * decay.soft_coefficient(two, 100), rel=1e-12
        )
    assert decay.soft_coefficient(0, 100) == 1 and decay.soft_coefficient(100, 100) == 0, "hard at the end"
    paper = make("mask_exp", coef=1e-4)
    found = [paper.soft_coefficient(int(109_500 * share), 109_500) for share in (0.1, 0.25, 0.5)]
    assert found == pytest.approx([0.33, 0.065, 0.004], rel=0.05)


def test_pruned_weights_cost_until_a_thousandth_is_left():
    decay = make("mask_exp", rate=10.0)  # exp(-6.9) is 1.008e-3, exp(-7.0) is 0.91e-3
    assert decay.updates(100) == [0, 70, 100]
    assert [decay.costing(step, 100) for step in (0, 69, 70, 100)] == [0, 0, 1, 1]
    assert make("mask_exp", rate=6.0).updates(100) == [0, 100], "0.0025 is left when the mask turns hard"


@pytest.mark.parametrize(
    ("sparsity", "kept"),
    [
        ("1:8", [7, 4, 2, 1]), ("1:16", [15, 8, 4, 2, 1]), ("2:8", [7, 4, 2]), ("2:4", [3, 2]), ("1:4", [3, 2, 1]),
        ("3:4", [3]), ("1:2", [1]), ("3:8", [7, 4, 3]), ("1:32", [31, 16, 8, 4, 2, 1]),
    ],
)  # fmt: skip
def test_stepwise_stages(sparsity, kept):
    stepwise = toward(sparsity, "stepwise")
    m = sparsity.split(":")[1]
    assert list(map(str, stepwise.structures())) == [f"{n}:{m}" for n in kept]
    assert stepwise.structures()[-1] == Sparsity.parse(sparsity)


def test_a_dense_n_of_m_has_one_stage():
    cls = SCHEDULES["stepwise"]
    stepwise = cls(cls.Options(), NOfM.of(4, 4))
    assert list(map(str, stepwise.structures())) == ["4:4"] and stepwise.level(0, 100) == 1


def test_stages_are_equally_long_between_the_dense_and_the_last_phase():
    stepwise = toward("1:8", "stepwise", begin=0.1, end=0.9)
    assert stepwise.updates(100) == [10, 30, 50, 70]
    assert [str(stepwise.structure(step, 100)) for step in (10, 29, 30, 69, 70, 100)] == [
        "7:8", "7:8", "4:8", "2:8", "1:8", "1:8",
    ]  # fmt: skip
    assert [stepwise.level(step, 100) for step in (9, 10, 30, 50, 70)] == pytest.approx([0, 1 / 7, 4 / 7, 6 / 7, 1])
    assert stepwise.level(70, 100) == 1.0


@pytest.mark.parametrize(
    ("k_max", "structures"),
    [(8, ["8:64", "4:32", "2:16", "1:8"]), (16, ["16:128", "8:64", "4:32", "2:16", "1:8"]), (2, ["2:16", "1:8"])],
)
def test_geometric_stages(k_max, structures):
    geometric = toward("1:8", "geometric", k_max=k_max, end=1.0)
    assert list(map(str, geometric.structures())) == structures
    assert {structure.density for structure in geometric.structures()} == {1 / 8}
    assert {geometric.level(step, 100) for step in range(101)} == {1.0}


@settings(max_examples=60)
@given(st.integers(1, 32), st.integers(2, 64), st.sampled_from(["stepwise", "geometric"]), st.integers(20, 500))
def test_structures_tighten_to_the_final_one_at_updates_only(n, m, name, total):
    if n >= m:
        return
    decay = toward(f"{n}:{m}", name, begin=0.1)
    structures, updates = decay.structures(), decay.updates(total)
    densities = [structure.density for structure in structures]
    assert densities == sorted(densities, reverse=True) and len(updates) == len(structures)
    if decay.issues(total):
        return
    assert updates == sorted(set(updates)) and updates[-1] <= total
    seen = [decay.structure(step, total) for step in range(updates[0], total + 1)]
    assert seen[-1] == Sparsity.parse(f"{n}:{m}") and list(dict.fromkeys(seen)) == structures
    numel = 64 * m
    for step, structure in enumerate(seen, updates[0]):
        kept = numel - round(decay.level(step, total) * (numel - 64 * n))
        assert kept == round(numel * structure.density), "the level gives the count of the structure"


# -- properties --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAMPS)
@settings(max_examples=100)
@given(st.floats(0, 0.99), st.floats(0.01, 1), st.integers(1, 500), st.integers(1, 3000))
def test_ramps_climb_from_dense_to_the_end_and_only_at_updates(name, begin, end, every, total):
    ramp = make(name, begin=begin, end=end, every=every)
    if ramp.issues(total):
        assert all(len(line) <= WIDTH for line in lines(ramp, total))
        return
    updates = ramp.updates(total)
    assert updates == sorted(set(updates)) and updates[0] >= 0 and updates[-1] <= total and len(updates) >= 2
    assert all(b - a == every for a, b in pairwise(updates[:-1]))
    assert updates[-1] - updates[-2] <= every
    levels = [ramp.level(step, total) for step in range(total + 1)]
    assert levels == sorted(levels) and levels[updates[0]] == 0.0 and levels[-1] == 1.0
    assert ramp.level(updates[-2], total) < 1.0 == ramp.level(updates[-1], total)
    assert {step for step in range(1, total + 1) if levels[step] != levels[step - 1]} <= set(updates)


@settings(max_examples=100)
@given(st.sampled_from(["cosine", "linear", "constant"]), st.floats(0.01, 1), st.integers(1, 100), st.integers(1, 2000))
def test_periodic_fractions_fall_and_end(decay, stop, every, total):
    periodic = make("periodic", decay=decay, stop=stop, every=every, fraction=0.5)
    updates = periodic.updates(total)
    fractions = [periodic.fraction(step, total) for step in updates]
    assert fractions == sorted(fractions, reverse=True) and all(0 < f <= 0.5 for f in fractions)
    assert updates[-1] < total and bool(periodic.issues(total)) == (len(updates) == 1)


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, total, line",
    [
        ("cubic", {"end": 1.2}, 9375, "schedule.end=1.2: after the last step (9,375) — at most 1.0"),
        ("cubic", {"begin": 1.5, "end": 0.5}, 9375, "schedule.begin=1.5: after the last step (9,375) — at most 1.0"),
        (
            "linear",
            {"begin": 0.5, "end": 0.2},
            100,
            "schedule.end=0.2: not after schedule.begin=0.5 — above 0.5",
        ),
        (
            "linear",
            {"begin": 0.5, "end": 0.5},
            100,
            "schedule.end=0.5: not after schedule.begin=0.5 — above 0.5",
        ),
        (
            "cosine",
            {"begin": 0.5, "end": 0.51},
            10,
            "schedule.end=0.51: the ramp has no steps, both ends fall on step 5 of 10 — train longer or widen it",
        ),
        (
            "cubic",
            {"begin": 0.1, "end": 0.7, "every": 61},
            100,
            "schedule.every=61: longer than the ramp (60 steps) — at most 60",
        ),
        ("one_shot", {"at": 1.01}, 9375, "schedule.at=1.01: after the last step (9,375) — at most 1.0"),
        ("periodic", {"stop": 1.2}, 9375, "schedule.stop=1.2: after the last step (9,375) — at most 1.0"),
        ("mask_linear", {"end": 1.2}, 100, "schedule.end=1.2: after the last step (100) — at most 1.0"),
        ("mask_exp", {"begin": 0.7, "end": 0.5}, 100, "schedule.end=0.5: not after schedule.begin=0.7 — above 0.7"),
        (
            "mask_exp",
            {"coef": 1e-4},
            1000,
            "schedule.coef=0.0001: 0.9 of a pruned weight is left at update 1,000, where the mask turns hard — "
            "coef=null, or at least 0.0024",
        ),
        (
            "mask_exp",
            {"rate": 2.0, "end": 0.5},
            1000,
            "schedule.rate=2: 0.37 of a pruned weight is left at update 500, where the mask turns hard — at least 4.82",
        ),
        (
            "mask_linear",
            {"coef": 2e-4},
            1000,
            "schedule.coef=0.0002: 0.88 of a pruned weight is left at update 600, where the mask turns hard — "
            "coef=null, or at least 0.0017",
        ),
        (
            "mask_linear",
            {"begin": 0.5, "end": 0.51},
            10,
            "schedule.end=0.51: the decay has no updates, both ends fall on 5 of 10 — train longer or widen it",
        ),
        (
            "periodic",
            {"every": 100},
            100,
            "schedule.every=100: no exchange: the mask freezes at step 75 — at most 74",
        ),
        (
            "periodic",
            {"every": 1},
            1,
            "schedule.every=1: no exchange: the mask freezes at step 1 — train longer",
        ),
    ],
)
def test_a_schedule_that_never_reaches_its_end_is_a_fault(name, options, total, line):
    assert lines(make(name, **options), total) == [line]
    assert lines(make(name, **options), total)[0].startswith("schedule.")
    assert str(make(name, **options).issues(total, "phase.schedule")[0]).startswith("phase.schedule.")


def test_both_ends_beyond_the_run_are_two_faults():
    assert len(lines(make("cubic", begin=1.1, end=1.2), 100)) == 2


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_defaults_reach_their_end(name):
    assert lines(make(name), 1000) == []


@pytest.mark.parametrize(
    "name, options",
    [
        ("cubic", {"begin": -0.1}),
        ("cubic", {"every": 0}),
        ("cubic", {"every": 1.5}),
        ("cubic", {"power": 0.0}),
        ("one_shot", {"at": -1.0}),
        ("periodic", {"decay": "step"}),
        ("periodic", {"fraction": 1.5}),
        ("constant", {"end": 0.5}),
    ],
)
def test_bad_options_are_one_line(name, options):
    with pytest.raises(ConfigError) as refused:
        make(name, **options)
    (issue,) = refused.value.issues
    assert str(issue).startswith(f"schedule.{next(iter(options))}") and len(str(issue)) <= WIDTH


def test_ramps_refuse_n_of_m():
    assert [name for name in SCHEDULES if "nm" not in SCHEDULES[name].patterns] == sorted(
        (*RAMPS, "breathing", "rounds")
    )
