"""S3: sweeps through a Slurm that is made up, and everything that a cluster does to jobs. The real one is test_slurm.py.

Real are the sweep, the launcher, submitit and its handling of signals, leases and records. Made up are Slurm's five
commands (fake_slurm.py), which also forget jobs as soon as they have ended, and what a cell computes (toy_job.py).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toy_job
from fake_slurm import ENDED, Cluster

from hydra_plugins.sparselab_sweeper import launchers
from sparselab.experiments.sweeps import start, sweep
from sparselab.storage import record as records

ROOT = Path(__file__).parents[2]
CELLS = ["method=dense", "model=mlp", "trainer.max_epochs=null", "trainer.max_steps=3", "hydra/launcher=submitit_slurm"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", 3, [sys.executable, str(Path(toy_job.__file__))]) as made:
        monkeypatch.setenv("PATH", f"{made.folder}/bin:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("TOY_HOLD", str(tmp_path / "hold"))
        (tmp_path / "hold").mkdir()
        monkeypatch.setattr(launchers, "POLL", 0.1)
        monkeypatch.setattr(sweep, "POLL", 0.1)
        yield made


def step(runs: Path, job: str) -> int:
    """How far the cell of a job has come: the lease in its folder names the job."""
    for path in runs.glob("*/lease.json"):
        try:
            if json.loads(path.read_text())["job"] == job:
                return json.loads((path.parent / "step.json").read_text())
        except (OSError, ValueError):
            pass
    return 0


def storm(cluster: Cluster, runs: Path, job: str, *strokes: Callable[[str], None]) -> None:
    """Strike the job, again and again once it computes anew; it does not end before."""
    hold = Path(os.environ["TOY_HOLD"]) / job
    hold.touch()

    def strike() -> None:
        reached = 0
        for stroke in strokes:
            while step(runs, job) < reached + 2:
                time.sleep(0.02)
            reached = step(runs, job)
            print(f"S3: {stroke.__name__} {job} at step {reached}")
            wanted = cluster.restarts()[job] + 1
            stroke(job)
            while cluster.restarts()[job] < wanted and cluster.state(job) not in ENDED:
                time.sleep(0.02)
        hold.unlink()

    threading.Thread(target=strike, daemon=True).start()


def ran(runs: Path) -> dict[str, list[list[str]]]:
    """Of each cell, for each time that it was begun: (the step it went on from, its tracker run)."""
    return {p.parent.name: [line.split() for line in p.read_text().splitlines()] for p in runs.glob("*/ran")}


def test_s3_signals_lost_nodes_and_a_second_requeue(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    storm(cluster, runs, "100_0", cluster.warn, cluster.warn)
    storm(cluster, runs, "100_1", cluster.lose_node)
    code = start.start([*CELLS, "seed=0,1,2", f"runs_dir={runs}", "hydra.launcher.timeout_min=1"])
    assert code == 0, capfd.readouterr().err
    # each cell is done once, by one array, and went on where it had been
    assert cluster.arrays() == {"100"}
    assert cluster.restarts() == {"100_0": 2, "100_1": 1, "100_2": 0}
    begun = ran(runs)
    assert sorted(map(len, begun.values())) == [1, 2, 3]
    for id, times in begun.items():
        steps = [int(from_step) for from_step, _ in times]
        assert steps == sorted(set(steps)) and {tracker for _, tracker in times} == {id}
        assert records.result_hash(records.read(runs / id, id)) == records.result_hash(toy_job.result(id))
    assert not list(runs.glob("*/lease.json")) and not (runs / ".sweeps").exists()
    print("S3: 3 cells, 3 restarts, 0 lost, 0 done twice")


def test_s3_control_without_requeues_a_job_that_is_out_of_time_is_lost(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """submitit's default, max_num_timeout=0, with which the drill above would not pass."""
    runs = tmp_path / "runs"
    storm(cluster, runs, "100", cluster.warn)
    limits = ["hydra.launcher.timeout_min=1", "hydra.launcher.max_num_timeout=0"]
    assert start.start([*CELLS, "seed=0", f"runs_dir={runs}", *limits]) == 1
    assert (
        "Job not requeued because: timed-out too many times" in capfd.readouterr().err.split("1 of 1 cells failed:")[1]
    )
    assert cluster.restarts() == {"100": 0} and not list(runs.glob("*/record.json"))


def test_s3_scancel_stops_the_sweep_and_the_same_command_goes_on(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    words = [*CELLS, "seed=0", f"runs_dir={runs}"]

    def scancel(job: str) -> None:
        os.spawnlp(os.P_WAIT, "scancel", "scancel", job)

    storm(cluster, runs, "100", scancel)
    assert start.start(words) == 75
    assert "stopped on request, 1 of 1 cells left" in capfd.readouterr().err
    assert start.start(words) == 0
    ((first, second),) = ran(runs).values()
    assert first[0] == "0" and int(second[0]) >= 2
