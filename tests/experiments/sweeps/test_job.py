"""What a job does around its cell; the cell itself is made up."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from sparselab.core.errors import ConfigError, RunFailed, Stopped, refuse
from sparselab.experiments.sweeps import job, lease, start
from sparselab.experiments.sweeps.cells import Planned
from sparselab.experiments.sweeps.job import Job, execute
from sparselab.running import run_cell as cli_run
from sparselab.running.engine import Plan
from sparselab.storage import record as records

ID = "0123456789ab"


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``cell(action)`` runs a job whose cell does ``action``."""
    plan = Plan({"runs_dir": "x", "seed": 0}, ["seed=0"], ID, str(tmp_path / ID))
    monkeypatch.setattr(job, "plan_again", lambda one: plan)
    monkeypatch.setattr(job, "threads_kept", nullcontext)

    def run(action: Any) -> job.Outcome:
        monkeypatch.setattr(cli_run, "run_cell", lambda plan: action(plan))
        return execute(Job(ID, (), tmp_path / "sweep"))

    return run


def finish(plan: Plan) -> None:
    records.write(plan.folder, {"id": ID, "status": "finished", "config": {}, "metrics": {}})


def fail_with(error: BaseException) -> Any:
    def action(plan: Plan) -> None:
        raise error

    return action


def test_output_goes_to_the_log_and_the_lease_is_given_back(
    cell: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(plan: Plan) -> None:
        print("trained")
        print("warned", file=sys.stderr)
        assert lease.held(plan.folder) is not None
        finish(plan)

    assert cell(action).state == "finished"
    assert (tmp_path / ID / "log.txt").read_text() == "trained\nwarned\n"
    assert capsys.readouterr() == ("", "") and lease.held(tmp_path / ID) is None
    assert cell(fail_with(AssertionError("run again"))).state == "finished"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunFailed("update 3: loss is NaN"), "update 3: loss is NaN"),
        (ConfigError([]), ""),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (see"),
        (MemoryError(), "MemoryError: (see"),
    ],
)
def test_every_failure_leaves_its_reason(cell: Any, tmp_path: Path, error: BaseException, reason: str) -> None:
    if isinstance(error, ConfigError):
        with pytest.raises(ConfigError) as caught:
            refuse("targets", "matches no layer", "name one")
        error, reason = caught.value, "targets: matches no layer — name one"
    outcome = cell(fail_with(error))
    assert outcome.state == "failed" and " ".join(outcome.reason.split()).startswith(reason)
    record = records.read(tmp_path / ID, ID)
    assert record["status"] == "failed" and record["reason"] == outcome.reason and "runs_dir" not in record["config"]
    assert lease.held(tmp_path / ID) is None


def test_a_failure_does_not_replace_what_another_process_finished(cell: Any, tmp_path: Path) -> None:
    def action(plan: Plan) -> None:
        finish(plan)
        raise RunFailed("its checkpoints are gone")

    assert cell(action).state == "finished" and records.finished(tmp_path / ID, ID)


def test_busy_names_the_holder(cell: Any, tmp_path: Path) -> None:
    held = lease.take(tmp_path / ID, replace(lease.myself(), host="node7"))
    assert isinstance(held, lease.Lease)
    outcome = cell(finish)
    held.release()
    assert outcome.state == "busy" and outcome.reason.startswith("node7, process")


def test_nothing_is_begun_after_a_request_to_stop(cell: Any, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / job.STOP).touch()
    assert cell(finish).state == "left" and not (tmp_path / ID).exists()


def test_a_signal_is_handed_on_to_its_earlier_owner(cell: Any) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        outcome = cell(fail_with(Stopped("SIGUSR2: stopped after update 5 — the same command goes on from there")))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert outcome.state == "stopped" and seen == [signal.SIGUSR2]


def test_a_slurm_job_that_is_cancelled_leaves_without_a_result(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with pytest.raises(SystemExit) as left:
            cell(fail_with(Stopped("SIGTERM: stopped after update 5")))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 75 and lease.held(tmp_path / ID) is None


def test_a_requeue_that_ends_scontrol_before_it_can_say_so_is_no_failure(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm ends every process of a job that it queues again, the scontrol that asked for it among them."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")

    def submitits(number: int, frame: Any) -> None:
        raise subprocess.CalledProcessError(-signal.SIGTERM, ["scontrol", "requeue", "7"])

    before = signal.signal(signal.SIGUSR2, submitits)
    try:
        with pytest.raises(SystemExit) as left:
            cell(fail_with(Stopped("SIGUSR2: stopped after update 5")))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert left.value.code == 75 and not (tmp_path / ID / "record.json").exists()

    returned = JobReturn()
    returned.status = JobStatus.FAILED
    returned.return_value = subprocess.CalledProcessError(-signal.SIGTERM, ["scontrol"])
    assert start._outcome(Planned(ID, str(tmp_path), "", (), 1.0), returned) is None


@pytest.mark.parametrize("error", [Stopped("another rank: stopped"), KeyboardInterrupt()])
def test_without_a_signal_of_its_own_it_is_stopped_all_the_same(cell: Any, error: BaseException) -> None:
    assert cell(fail_with(error)).state == "stopped"


def test_a_cell_that_has_become_another_is_not_run(tmp_path: Path) -> None:
    outcome = execute(Job(ID, ("method=dense", "model=mlp"), tmp_path))
    assert outcome.state == "failed" and outcome.reason.startswith(f"cell {ID}: has become another one")


def test_a_second_task_of_the_same_job_leaves_the_cell_to_the_first(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody makes Slurm start several all the same: one holds the lease, one writes the record."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")

    def action(plan: Plan) -> None:
        monkeypatch.setenv("SLURM_PROCID", "1")
        assert execute(Job(ID, (), tmp_path / "sweep")).state == "busy"
        finish(plan)

    assert cell(action).state == "finished" and lease.held(tmp_path / ID) is None
