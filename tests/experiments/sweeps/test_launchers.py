"""The launchers for schedulers, against a queue that is made up."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.sparselab_sweeper import launchers
from sparselab.config import members
from sparselab.core.errors import ConfigError


class Queue:
    """What squeue would say at each look, and what was cancelled. A job's result appears when it is told to."""

    def __init__(self, tmp_path: Path, *looks: dict[str, str], results: dict[str, int] | None = None):
        self.tmp_path, self.looks, self.results = tmp_path, list(looks), results or {}
        self.cancelled: list[str] = []
        self.look = -1

    def job(self, number: int) -> Any:
        path = self.tmp_path / f"7_{number}.pkl"

        def results() -> list[JobReturn]:
            one = JobReturn()
            one.status, one.return_value = JobStatus.COMPLETED, {"id": f"{number}", "state": "finished"}
            return [one]

        return SimpleNamespace(job_id=f"7_{number}", paths=SimpleNamespace(result_pickle=path), results=results)

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[0] == "scancel":
            self.cancelled += command[1:]
            return subprocess.CompletedProcess(command, 0, "", "")
        self.look += 1
        for id, at in self.results.items():
            if self.look >= at:
                (self.tmp_path / f"{id}.pkl").touch()
        answer = self.looks[min(self.look, len(self.looks) - 1)]
        if "error" in answer:
            return subprocess.CompletedProcess(command, 1, "", answer["error"])
        return subprocess.CompletedProcess(command, 0, "".join(f"{id} {s}\n" for id, s in answer.items()), "")


def launch(queue: Queue, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    launcher = launchers.SlurmLauncher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(queue.tmp_path)}}})
    monkeypatch.setattr(launchers.SlurmLauncher, "_run", staticmethod(queue.run))
    monkeypatch.setattr(launchers.SlurmLauncher, "submit", lambda self, o, i: [queue.job(n) for n in range(count)])
    monkeypatch.setattr(launchers.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(launchers.time, "sleep", lambda seconds: None)
    returned = launcher.launch([["a=1"]] * count, 0)
    return [one and one.return_value["state"] for one in returned]


def test_each_job_is_waited_for_and_a_dead_one_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(
        tmp_path,
        {"7_0": "RUNNING", "7_1": "RUNNING", "7_2": "PENDING"},
        {"7_0": "COMPLETED", "7_1": "NODE_FAIL", "7_2": "RUNNING"},
        {"7_2": "RUNNING"},
        {"7_2": "RUNNING"},
        {"7_2": "RUNNING"},
        {"7_2": "COMPLETED"},
        results={"7_0": 1, "7_2": 5},
    )
    assert launch(queue, 3, monkeypatch) == ["finished", None, "finished"]


def test_a_job_that_is_requeued_may_be_missing_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [{"7_0": "RUNNING"}, {"7_0": "PREEMPTED"}, {}, {"7_0": "PENDING"}, {"7_0": "RUNNING"}, {}]
    assert launch(Queue(tmp_path, *looks, results={"7_0": 5}), 1, monkeypatch) == ["finished"]


def test_a_scheduler_that_does_not_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    down = {"error": "slurm_load_jobs error: Unable to contact slurm controller"}
    assert launch(Queue(tmp_path, *[down] * 20, results={"7_0": 15}), 1, monkeypatch) == ["finished"]
    gone = {"error": "slurm_load_jobs error: Invalid job id specified"}
    (tmp_path / "7_0.pkl").unlink()
    assert launch(Queue(tmp_path, gone), 1, monkeypatch) == [None]


def test_a_cancelled_job_was_stopped_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(tmp_path, {"7_0": "RUNNING"}, {"7_0": "CANCELLED"})
    assert launch(queue, 1, monkeypatch) == ["stopped"]


def test_a_request_to_stop_cancels_what_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stop").touch()
    queue = Queue(tmp_path, {"7_0": "RUNNING", "7_1": "PENDING"}, {"7_0": "CANCELLED", "7_1": "CANCELLED"})
    assert launch(queue, 2, monkeypatch) == ["stopped", "stopped"]
    assert queue.cancelled == ["7_0", "7_1"]


def test_without_slurm_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"submitit_slurm: there is no sbatch here — .* or write hydra/launcher=joblib"
    ):
        launchers.SlurmLauncher().launch([["a=1"]], 0)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
@pytest.mark.parametrize(
    "changed, line",
    [
        (
            {"job": {"env_set": {"OMP_NUM_THREADS": "4"}}},
            "hydra.job.env_set: does not reach the cells — write OMP_NUM_THREADS=… before the command: jobs inherit it",
        ),
        (
            {"callbacks": {"mine": {"path": "x"}}},
            "hydra.callbacks: are not called around cells — a logger (logger=…) is told of a cell's beginning and end",
        ),
    ],
)
def test_what_no_cell_would_hear_of_is_one_line(
    changed: dict[str, Any], line: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who edits configs/config.yaml would meet it; on the command line both are refused as they are read."""
    own = members._hydra

    def edited(*arguments: Any, **more: Any) -> dict[str, Any]:
        tree = own(*arguments, **more)
        for key, value in changed.items():
            tree["hydra"][key] |= value
        return tree

    monkeypatch.setattr(members, "_hydra", edited)
    with pytest.raises(ConfigError) as refused:
        members.launching([], [f"hydra/launcher={launcher}"], None)
    assert [str(issue) for issue in refused.value.issues] == [line]
