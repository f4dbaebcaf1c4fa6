"""The engines `estimate` and `online`: cells of many draws, from plan to record."""

from __future__ import annotations

import os
import signal
from math import sqrt

import pytest

from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.estimation.monte_carlo import over_draws
from sparselab.estimation.problems.sem import Sem
from sparselab.running.engine import ENGINES
from sparselab.running.planning import engine_of, plan_of
from sparselab.storage import record as records

QUICK = [
    "problem.nodes=5",
    "problem.degree=1.0",
    "problem.samples=50",
    "estimator.warm_iter=20",
    "estimator.max_iter=20",
]
ESTIMATE = ["estimator=colide", *QUICK, "engine.draws=3"]
ONLINE = ["solver=elimination", "problem.d=9", "problem.n_actions=20", "engine.draws=4"]


def run(tmp_path, *overrides):
    plan = plan_of([*overrides, f"runs_dir={tmp_path}", "trainer.threads=1"])
    return engine_of(plan.config).run(plan)


@pytest.mark.parametrize("cell", [ESTIMATE, ONLINE], ids=["estimate", "online"])
def test_a_cell_is_one_record_and_running_it_again_gives_the_same(cell, tmp_path):
    one, again = run(tmp_path / "one", *cell), run(tmp_path / "two", *cell)
    assert one["metrics"] == again["metrics"] and one["id"] == again["id"]
    assert one["metrics"]["test.n"] == int(cell[-1][-1])
    assert one["sparsity"]["realised"] == one["metrics"]["test.sparsity"]
    assert one["data"]["source"] == "drawn" and one["account"]["work"] > 0
    assert run(tmp_path / "three", *cell, "seed=1")["metrics"] != one["metrics"]


def test_mean_spread_and_maximum_of_what_all_draws_have():
    rows = [{"a": 1.0, "b": 2.0}, {"a": 4.0}, {"a": 1.0}]
    assert over_draws(rows) == {"a": 2.0, "a_sd": sqrt(3), "a_max": 4.0}
    assert over_draws([{"a": 1.0}]) == {"a": 1.0}


def test_the_record_is_the_mean_of_the_draws_one_by_one(tmp_path):
    """Draws are addressed by number: the first two of three are the two of a cell of two; and company changes no bit."""
    three = run(tmp_path, *ESTIMATE)["metrics"]
    plan = plan_of([*ESTIMATE, "engine.draws=1"])
    cell, problem, estimator, _ = plan.parts
    alone = [
        problem.draw(cell.seed, number).measure(estimator.build(0).fit(problem.draw(cell.seed, number).X))
        for number in range(3)
    ]
    for name, value in over_draws(alone).items():
        assert three[f"test.{name}"] == value


def test_methods_meet_the_same_draws():
    draws = [plan_of([*ESTIMATE, f"estimator.variance={v}"]).parts[1].draw(0, 1).X for v in ("ev", "nv")]
    assert (draws[0] == draws[1]).all()


def test_a_stop_between_draws_leaves_no_record_and_the_next_run_is_as_ever(tmp_path, monkeypatch):
    draw = Sem.draw

    def interrupted(self, *place):
        if place[1] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(self, *place)

    cell = ["estimator=sort_n_regress", *QUICK[:3], "engine.draws=3"]
    with monkeypatch.context() as patch:
        patch.setattr(Sem, "draw", interrupted)
        with pytest.raises(Stopped, match="SIGTERM: stopped after 2 of 3 draws"):
            run(tmp_path, *cell)
    plan = plan_of([*cell, f"runs_dir={tmp_path}"])
    assert records.finished(plan.folder, plan.id) is None
    assert run(tmp_path, *cell)["metrics"] == run(tmp_path / "whole", *cell)["metrics"]


def test_what_cannot_be_drawn_or_fitted_fails_with_a_line(tmp_path):
    with pytest.raises(RunFailed, match=r"draw 0: \d of 5 sign vectors"):
        run(tmp_path, "solver=uniform", "problem=needle", "problem.d=4", "problem.s=2", "problem.n_actions=5")


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (["estimator=dagma", "problem=spread"],
         ["problem=spread estimator=dagma: it takes a graph, and this is a bandit — write problem=sachs or sem"]),
        (["estimator=dagma", "problem.nodes=8"],
         ["problem.degree=4: 8 nodes have room for 3.5 edges a node — write at most 3.5"]),
        (["estimator=dagma", "estimator.s=[0]", "estimator.betas=[1,0.5]"],
         ["estimator.s: has a domain that is not above 0 — write numbers above 0",
          "estimator.betas: has a decay outside [0, 1) — write such as [.99,.999]"]),
        (["estimator=dagma", "problem.variance=0"],
         ["problem.variance=0: is no number above 0 and no range of such — one number for all nodes, or [low, high]: "
          "uniform, a node each; above 0"]),
        (["estimator=dagma", "engine.draws=0"],
         ["engine.draws=0: input should be greater than or equal to 1 — draws of the problem, at least 1"]),
        (["solver=gopt_ls", "problem.s=65"], ["problem.s=65: there are 64 dimensions — write at most 64"]),
        (["estimator=colide", "sparsity=0.9"],
         ["sparsity=0.9: engine=estimate does not read it — leave it out, or choose engine="]),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_at_once(typed, lines):
    with pytest.raises(ConfigError) as refused:
        plan_of(typed)
    found = list(map(str, refused.value.issues))
    assert len(found) == len(lines) and all(map(str.startswith, found, lines)), found


def test_the_id_depends_on_what_is_drawn_and_fitted_and_on_nothing_else():
    plain = plan_of(ESTIMATE)
    for same in ("trainer.threads=1", "runs_dir=elsewhere", "tier=cpu", "logger=wandb"):
        assert plan_of([*ESTIMATE, same]).id == plain.id
    for other in ("engine.draws=4", "problem.variance=2.0", "estimator.lambda1=0.1", "seed=1"):
        assert plan_of([*ESTIMATE, other]).id != plain.id
    assert ENGINES["estimate"].reads == ("problem", "estimator")
