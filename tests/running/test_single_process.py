"""Engines without Lightning, proved with one of a few lines: what it does not read is no part of its cells."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pydantic import Field

from sparselab.cli import application, check
from sparselab.config.schema import Common
from sparselab.core.errors import ConfigError, Issue, Stopped
from sparselab.core.options import Options
from sparselab.running.engine import ENGINES
from sparselab.running.planning import plan_of
from sparselab.running.single_process import Job, Outcome, SingleProcessEngine
from sparselab.storage import atomic
from sparselab.storage import record as records


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch, borrowed):
    """`engine=toy engine.number=3`: squares a number. Returns the folder of its config."""
    monkeypatch.chdir(tmp_path)

    @borrowed(ENGINES).register("toy")
    class Toy(SingleProcessEngine):
        class Options(Options):
            number: int = Field(3, ge=0, description="at least 0")

        class Top(Common):
            sparsity: str | None

        reads = ("sparsity",)

        def gather(self, cell, issues, invalid, dependencies):
            if self.options.number == 13:
                issues.found.append(Issue("engine.number=13", "brings bad luck", "write 12 or 14"))
            return Job(parts=self.options.number, size="1 square", work=2.0, facts=[("number", "a small one")])

        def execute(self, plan, stop):
            if plan.parts == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            stop.check("before the square")
            square = {"test.square": float(plan.parts**2)}
            return Outcome(square, write=lambda folder: {"x": {"sha256": str(atomic.write_text(folder / "x", "x"))}})

    folder = tmp_path / "mine" / "engine"
    folder.mkdir(parents=True)
    (folder / "toy.yaml").write_text("name: toy\nnumber: 3\n")
    return str(tmp_path / "mine")


def issues(*overrides, toy):
    with pytest.raises(ConfigError) as refused:
        plan_of(["engine=toy", *overrides], toy)
    return list(map(str, refused.value.issues))


def test_a_cell_runs_and_leaves_a_record(toy, capsys):
    assert application.main(["engine=toy", "engine.number=5", "--config-dir", toy]) == 0
    shown = capsys.readouterr()
    path = shown.out.split()[-1]
    record = records.read(Path(path).parent)
    assert record["metrics"] == {"test.square": 25.0} and "test.square" in shown.out
    assert record["account"] == {"work": 2.0} and record["environment"]["commit"] is not None
    assert set(record["config"]) == {
        "engine",
        "logger",
        "trainer",
        "tier",
        "paper",
        "seed",
        "force",
        "debug",
        "sparsity",
    }
    assert "1 square" in shown.err
    assert application.main(["engine=toy", "engine.number=5", "--config-dir", toy]) == 0
    assert "finished before" in capsys.readouterr().err


def test_check_prints_the_plan(toy, capsys):
    assert check.run(["engine=toy", "--config-dir", toy]) == 0
    shown = capsys.readouterr().out
    assert "a small one" in shown and "not known: no earlier record" in shown


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("optim=sgd", "optim=sgd: engine=toy does not read it — leave it out, or choose engine=train"),
        ("method.lambda_w=1", "method.lambda_w=1: engine=toy does not read it — leave it out, or choose engine=train"),
        ("trainer.clip=1.0", "trainer.clip=1.0: engine=toy does not read it — leave it out, or choose engine=train"),
        ("engine.number=-1", "engine.number=-1: input should be greater than or equal to 0 — at least 0"),
        ("engine.number=13", "engine.number=13: brings bad luck — write 12 or 14"),
        ("seed=-1", "seed=-1: input should be greater than or equal to 0 — a whole number, at least 0"),
    ],
)
def test_what_is_not_read_or_not_allowed_is_refused(typed, line, toy):
    assert issues(typed, toy=toy) == [line]


def test_all_faults_at_once(toy):
    assert len(issues("optim=sgd", "engine.number=13", "seed=-1", toy=toy)) == 3


def test_how_it_runs_is_no_part_of_the_id(toy):
    plain = plan_of(["engine=toy"], toy)
    for same in ("trainer.threads=1", "logger=wandb", "runs_dir=elsewhere", "trainer.evals=3", "tier=smoke"):
        assert plan_of(["engine=toy", same], toy).id == plain.id
    for other in ("engine.number=4", "seed=1", "sparsity='0.5'"):
        assert plan_of(["engine=toy", other], toy).id != plain.id


def test_a_signal_stops_it_without_a_record(toy):
    plan = plan_of(["engine=toy", "engine.number=7"], toy)
    with pytest.raises(Stopped, match="SIGTERM: stopped before the square"):
        ENGINES["toy"](ENGINES["toy"].Options(number=7)).run(plan)
    assert records.finished(plan.folder, plan.id) is None


def test_threads_are_honoured_without_torch(toy):
    assert application.main(["engine=toy", "trainer.threads=1", "--config-dir", toy]) == 0
