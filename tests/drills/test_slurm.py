"""`hydra/launcher=submitit_slurm` on a real Slurm of one node, which scripts/slurm_one_node.sh starts.

Run as root where Slurm is installed (`scripts/slurm_one_node.sh install`): python -m pytest -m slow tests/drills/test_slurm.py
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from sparselab.storage import record as records

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "slurm_one_node.sh"
HOME = Path("/var/tmp/slurm-one-node-test")
LONG = ["method=srste", "sparsity=2:4", "model=mlp", "trainer.max_epochs=null", "trainer.threads=1", "trainer.evals=0"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", params=[1, 2], ids=["one_process", "two_processes"])
def long(request: pytest.FixtureRequest) -> list[str]:
    """The cell that things happen to: trained by one process, and by as many as there would be GPUs."""
    cpus = f"hydra.launcher.cpus_per_task={request.param}"
    return [*LONG, f"trainer.devices={request.param}", cpus]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster."""
    if os.geteuid():
        pytest.skip("starting Slurm needs root")
    for program in ("slurmctld", "slurmd", "munged"):
        if shutil.which(program) is None and not Path(f"/usr/sbin/{program}").exists():
            pytest.skip(f"{program} is not installed: run scripts/slurm_one_node.sh install")
    environment = {**os.environ, "SLURM_ONE_NODE": str(HOME), "SLURM_ONE_NODE_PORT": "16917", "HF_HUB_OFFLINE": "1"}
    environment["SLURM_CONF"] = f"{HOME}/slurm.conf"
    started = subprocess.run([SCRIPT, "start"], env=environment, text=True, capture_output=True, check=False)
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stderr[-200:]}")
    try:
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        subprocess.run([SCRIPT, "stop"], env=environment, check=True)
        shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_stays(slurm: dict[str, str]) -> Iterator[None]:
    """A drill that fails half-way leaves neither its sweeps nor their jobs to the next."""
    yield
    for sweep in Sweep.begun:
        if sweep.process.poll() is None:
            sweep.process.kill()
            sweep.process.wait()
    Sweep.begun.clear()
    subprocess.run(["scancel", "--user=root"], env=slurm, check=False)


class Sweep:
    """A sweep through Slurm, in the background."""

    begun: ClassVar[list[Sweep]] = []

    def __init__(self, environment: dict[str, str], runs: Path, *words: str):
        self.environment, self.runs = environment, runs
        fixed = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=low"]
        self.began = time.monotonic()
        self.begun.append(self)
        self.process = subprocess.Popen(
            [sys.executable, "run.py", "-m", *words, f"runs_dir={runs}", *fixed],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def command(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, text=True, capture_output=True, check=False).stdout

    def jobs(self, state: str = "RUNNING") -> list[str]:
        return self.command("squeue", "-h", "-r", "-t", state, "-o", "%i").split()

    def until(self, what: str, seconds: float, answer: object) -> object:
        """Wait until ``answer()`` is true; returns it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if got := answer():  # type: ignore[operator]
                return got
            assert self.process.poll() is None, f"ended before: {what}\n{self.process.stdout.read()}"  # type: ignore[union-attr]
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.command('squeue')}")

    def training(self, updates: int = 1) -> str:
        """The id of a job that has trained that many updates or more."""
        self.until("a job runs", 300, self.jobs)
        self.until("it trains", 300, lambda: "update 1/" in self.log())
        time.sleep(3 + updates / 100)
        return self.jobs()[0]

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.runs.glob("*/log.txt"))

    def restarts(self) -> int:
        """Of the one cell; of several, how often more than once each they were begun."""
        begun = len(re.findall(r"^cell [0-9a-f]{12} · ", self.log(), re.MULTILINE))
        return begun - len(list(self.runs.glob("*/log.txt")))

    def stops(self) -> list[int]:
        """The updates at which the cell was stopped on request."""
        return [int(n.replace(",", "")) for n in re.findall(r"stopped after update ([\d,]+)", self.log())]

    def end(self, seconds: float = 800) -> str:
        output, _ = self.process.communicate(timeout=seconds)
        print(output)
        return output

    def said(self, what: str) -> None:
        """The line of a drill: what was done, and what was lost by it."""
        records_of = {
            path.parent.name: len(list(path.parent.glob("record*.json"))) for path in self.runs.glob("*/record.json")
        }
        seconds = time.monotonic() - self.began
        print(f"S3 (Slurm): {what}: {self.restarts()} restarts, records {records_of}, {seconds:.0f} s")
        assert set(records_of.values()) <= {1}, "one record a cell"

    def hashes(self) -> dict[str, str]:
        return {p.parent.name: records.result_hash(records.read(p.parent)) for p in self.runs.glob("*/record.json")}


@pytest.fixture(scope="module")
def whole(long: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the long cell gives in one go, without Slurm."""
    runs = tmp_path_factory.mktemp("whole")
    own = [word for word in long if not word.startswith("hydra")]
    words = [*own, "trainer.max_steps=4000", f"runs_dir={runs}"]
    subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, check=True, capture_output=True)
    return {p.parent.name: records.result_hash(records.read(p.parent)) for p in runs.glob("*/record.json")}


def test_a_table_as_an_array(slurm: dict[str, str], tmp_path: Path) -> None:
    sweep = Sweep(slurm, tmp_path / "runs", "paper=srste", "tier=smoke", "trainer.threads=1")
    arrays = sweep.until("jobs are queued", 300, lambda: sweep.jobs("PENDING,RUNNING"))
    assert len({job.partition("_")[0] for job in arrays}) == 1 and all("_" in job for job in arrays)  # type: ignore[union-attr,attr-defined]
    output = sweep.end()
    assert sweep.process.returncode == 0 and re.search(r": (\d+) of \1 cells finished", output)
    assert not (tmp_path / "runs" / ".sweeps").exists()
    sweep.said("a table as one array")


def test_a_signal_saves_requeues_and_goes_on(
    slurm: dict[str, str], tmp_path: Path, long: list[str], whole: dict[str, str]
) -> None:
    """What Slurm sends before it takes a node away; by hand, in the middle of training."""
    sweep = Sweep(slurm, tmp_path / "runs", *long, "trainer.max_steps=4000", "logger=wandb")
    job = sweep.training()
    sweep.command("scancel", "--signal=USR2", job)
    sweep.until("the job is started again", 300, lambda: sweep.restarts() == 1)
    output = sweep.end()
    assert sweep.process.returncode == 0, output
    assert "SIGUSR2: stopped after update" in sweep.log()
    assert sweep.hashes() == whole, "bit-equal to an unbroken run"
    trackers = {path.name.rpartition("-")[2] for path in (tmp_path / "runs").glob("*/wandb/offline-run-*")}
    assert trackers == set(whole), "one tracker run, whose id is the cell's"
    sweep.said("USR2 in training, requeued, bit-equal, one tracker run")


def test_preemption_by_a_higher_partition(
    slurm: dict[str, str], tmp_path: Path, long: list[str], whole: dict[str, str]
) -> None:
    sweep = Sweep(slurm, tmp_path / "runs", *long, "trainer.max_steps=4000")
    sweep.training()
    cores = str(os.cpu_count())
    sweep.command("sbatch", "-p", "high", "-n", cores, "--wrap=sleep 5", "--output=/dev/null")
    sweep.until("the job is preempted", 300, lambda: sweep.jobs("PENDING"))
    output = sweep.end()
    assert sweep.process.returncode == 0, output
    assert sweep.restarts() >= 1 and "stopped after update" in sweep.log()
    assert sweep.hashes() == whole
    sweep.said("preempted by a higher partition, bit-equal")


def test_a_job_that_is_out_of_time_goes_on_in_the_next(slurm: dict[str, str], tmp_path: Path, long: list[str]) -> None:
    """However fast the machine: once it goes on in its next job it has shown enough, and is asked to stop."""
    limits = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=40"]
    sweep = Sweep(slurm, tmp_path / "runs", *long, "trainer.max_steps=1000000", *limits)
    sweep.until("the job runs out of time and is started again", 600, lambda: sweep.restarts() == 1)
    (first,) = sweep.stops()
    sweep.until("it trains again", 300, lambda: "update " in sweep.log().rpartition("cell ")[2].partition("\n")[2])
    sweep.process.send_signal(signal.SIGTERM)
    output = sweep.end()
    assert sweep.process.returncode == 75, output
    assert "SIGUSR2: stopped after update" in sweep.log() and sweep.stops()[-1] > first
    sweep.said(f"ran out of time at updates {sweep.stops()}, each time saved and gone on from there")


def test_a_node_that_dies_without_a_signal(
    slurm: dict[str, str], tmp_path: Path, long: list[str], whole: dict[str, str]
) -> None:
    """kill -9 of slurmd, of the step's daemon and of the job: Slurm notices, requeues, and the last checkpoint counts."""
    sweep = Sweep(slurm, tmp_path / "runs", *long, "trainer.max_steps=4000", "trainer.checkpoint_every=50")
    job = sweep.training(100)
    for pid in node_processes(slurm, job):
        os.kill(pid, signal.SIGKILL)
    time.sleep(25)  # SlurmdTimeout is 10 s
    subprocess.run([SCRIPT, "start"], env=slurm, check=True, capture_output=True)
    output = sweep.end()
    assert sweep.process.returncode == 0, output
    assert sweep.restarts() == 1 and sweep.hashes() == whole
    sweep.said("slurmd, its step and the job killed with -9, bit-equal")


def node_processes(environment: dict[str, str], job: str) -> list[int]:
    """slurmd, its step daemons and what runs below them."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], text=True, capture_output=True, check=True).stdout
    parent = {int(a): int(b) for a, b in (line.split() for line in table.splitlines())}
    raw = subprocess.run(
        ["squeue", "-h", "-j", job, "-o", "%A"], env=environment, text=True, capture_output=True, check=True
    )
    pids = {int((HOME / "slurmd.pid").read_text())}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().decode(errors="replace") if path.exists() else ""
        if words.startswith("slurmstepd: ") and f"[{raw.stdout.strip()}." in words:
            pids.add(int(path.parent.name))
    while more := {pid for pid, above in parent.items() if above in pids} - pids:
        pids |= more
    return sorted(pids)


def test_scancel_saves_and_stops_the_sweep(
    slurm: dict[str, str], tmp_path: Path, long: list[str], whole: dict[str, str]
) -> None:
    words = [*long, "trainer.max_steps=4000"]
    sweep = Sweep(slurm, tmp_path / "runs", *words)
    job = sweep.training()
    sweep.command("scancel", job)
    output = sweep.end()
    assert sweep.process.returncode == 75, output
    assert "stopped on request, 1 of 1 cells left" in output and "SIGTERM: stopped after update" in sweep.log()
    again = Sweep(slurm, tmp_path / "runs", *words)
    assert "1 of 1 cells finished" in again.end() and again.process.returncode == 0
    assert again.hashes() == whole
    again.said("scancel, then the same command again, bit-equal")


def test_a_sweep_that_is_stopped_takes_its_jobs_back(slurm: dict[str, str], tmp_path: Path, long: list[str]) -> None:
    sweep = Sweep(slurm, tmp_path / "runs", *long, "trainer.max_steps=4000", "seed=range(0,6)")
    sweep.training()
    sweep.process.send_signal(signal.SIGTERM)
    output = sweep.end()
    assert sweep.process.returncode == 75, output
    assert "6 of 6 cells left" in output and not sweep.jobs("PENDING,RUNNING")
    sweep.said("TERM to the sweep, no job left in the queue")
