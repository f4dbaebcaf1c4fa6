"""Drill S6 and the trackers: a tracker that fails costs one line, and one that works goes on with the same run."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from sparselab.running.loggers.logger import LOGGERS, Guarded, Logger
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import guarded, run_cell
from sparselab.storage import record
from sparselab.training.loop.loop import Loop

CELL = [
    "method=srste", "sparsity=2:4", "model=mlp", "model.hidden=[16,8]", "dataset=digits", "trainer.batch_size=256",
    "trainer.max_steps=6", "trainer.evals=3", "trainer.threads=1", "trainer.progress=none", "trainer.accelerator=cpu",
]  # fmt: skip
BROKEN = "no route\nto the server"


def run(folder, *more):
    out, err = io.StringIO(), io.StringIO()
    plan = plan_of([*CELL, f"runs_dir={folder}", *more])
    with redirect_stdout(out), redirect_stderr(err):
        code = guarded(lambda: run_cell(plan))
    return code, out.getvalue(), err.getvalue(), Path(plan.folder)


def fails(*arguments):
    raise ConnectionError(BROKEN)


@pytest.mark.parametrize("call", ["open", "log", "close"])
def test_s6_a_tracker_that_fails_costs_one_line(tmp_path, monkeypatch, call):
    _, _, quiet, cell = run(tmp_path / "quiet")
    monkeypatch.setattr(LOGGERS["csv"], call, fails)
    code, out, err, other = run(tmp_path / "broken")
    line = "logger=csv: no route to the server — the run goes on without it"
    assert code == 0 and err.splitlines().count(line) == 1 and len(err.splitlines()) == len(quiet.splitlines()) + 1
    assert out.splitlines()[-1] == str(other / "record.json")
    assert record.result_hash(record.read(cell)) == record.result_hash(record.read(other))
    assert (cell / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


class Spy(Logger):
    def __init__(self):
        self.calls = []

    def open(self, plan):
        self.calls.append("open")

    def log(self, row):
        self.calls.append(row["step"])
        if row["step"] == 2:
            fails()

    def close(self):
        self.calls.append("close")


def test_a_tracker_that_failed_is_left_alone(capsys):
    spy = Spy()
    guarded_logger = Guarded(spy, None)
    for step in (1, 2, 3):
        guarded_logger.log({"step": step})
    guarded_logger.close()
    assert spy.calls == ["open", 1, 2] and capsys.readouterr().err.count("\n") == 1


def test_wandb_offline_goes_on_with_the_same_run(tmp_path, monkeypatch):
    _, _, _, cell = run(tmp_path / "csv")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = ("logger=wandb", "logger.project=tests", "trainer.checkpoint_every=2")

    class Crash(BaseException):
        pass

    def die(loop, *arguments):
        if loop.trainer.global_step == 4:
            raise Crash
        real(loop, *arguments)

    real = Loop.on_train_batch_start
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Loop, "on_train_batch_start", die)
        run(tmp_path / "tracked", *logger)
    code, out, err, other = run(tmp_path / "tracked", *logger)
    assert code == 0 and other.name == cell.name, err
    assert record.result_hash(record.read(cell)) == record.result_hash(record.read(other))
    assert out.splitlines()[-1] == str(other / "record.json") and err.count("\n") == 1
    folders = sorted(path for path in (other / "wandb").iterdir() if path.name.startswith("offline-run-"))
    assert folders and all(path.name.endswith(f"-{cell.name}") for path in folders)
    assert all((path / f"run-{cell.name}.wandb").stat().st_size for path in folders)


def test_wandb_is_told_what_the_run_is(tmp_path, monkeypatch):
    import wandb

    told, rows = {}, []

    class Run:
        def log(self, row, step):
            rows.append((step, row))

        def finish(self):
            rows.append("finish")

    monkeypatch.setattr(wandb, "init", lambda **options: told.update(options) or Run())
    _, _, _, cell = run(tmp_path, "logger=wandb", "logger.mode=online", "logger.entity=team")
    assert (told["id"], told["group"], told["resume"], told["dir"]) == (cell.name, None, "allow", str(cell))
    assert (told["project"], told["entity"], told["mode"]) == ("sparselab", "team", "online")
    assert "runs_dir" not in told["config"] and str(tmp_path) not in json.dumps(told["config"])
    found = record.read(cell)
    assert rows[-1] == "finish" and [row[0] for row in rows[:-1]] == [2, 4, 6, 6]
    assert rows[-2][1]["test.accuracy"] == found["metrics"]["test.accuracy"]
    assert rows[0][1].keys() >= {"step", "lr", "train.loss", "val.accuracy", "density"}
