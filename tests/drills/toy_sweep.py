"""A sweep over toy cells, to be killed: python toy_sweep.py RUNS CELLS SECONDS [OPTION ...].

Everything is the project's own but what a cell computes, which takes SECONDS and no torch. Each process notes what it
computed in a file of its own, RUNS/ran-<pid>.

crash=K       ends the process at its K-th change of the disk
fail=I,J      cells that cannot be run
stale=S       seconds after which a lease that shows no sign of life may be taken over
machine=NAME  pretends to be another machine: process ids mean nothing between two of them, and its clock is wrong
together=N    begins once N of them are ready, however slow the machine
naive         what people write first: one results file for all, read, changed and written, and no leases
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sparselab.core.errors import RunFailed
from sparselab.experiments.sweeps import job, lease
from sparselab.experiments.sweeps.cells import Asked, Planned, Schedule
from sparselab.experiments.sweeps.sweep import Sweep, new_token
from sparselab.running import run_cell as cli_run
from sparselab.running.engine import Plan
from sparselab.storage import atomic
from sparselab.storage import record as records


def cell_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:12]


def result(number: int) -> dict[str, Any]:
    """What the cell gives: a function of its number alone."""
    metrics = {"test.accuracy": int(cell_id(number), 16) / 16**12}
    return {"id": cell_id(number), "status": "finished", "config": {"number": number}, "metrics": metrics}


class Crashing(atomic.Files):
    """Ends the process, without a word, at the K-th change of the disk: before it or half-way through a write."""

    def __init__(self, at: int):
        self.left = at

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(137)

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.left == 1:
            os.write(descriptor, data[: len(data) // 2])
        self._step()
        return super().write(descriptor, data)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)


def main(argv: list[str]) -> int:
    runs, cells, seconds = Path(argv[0]), int(argv[1]), float(argv[2])
    options = dict(word.partition("=")[::2] for word in argv[3:])
    runs.mkdir(parents=True, exist_ok=True)
    ran = runs / f"ran-{os.getpid()}"
    failing = {int(word) for word in options.get("fail", "").split(",") if word}

    def compute(number: int) -> dict[str, Any]:
        with ran.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(seconds)
        if number in failing:
            raise RunFailed(f"toy {number} cannot be run")
        return result(number)

    if "together" in options:
        (runs / f"ready-{os.getpid()}").touch()
        while len(list(runs.glob("ready-*"))) < int(options["together"]):
            time.sleep(0.005)
    if "naive" in options:
        return naive(runs / "results.json", cells, compute)
    if "crash" in options:
        atomic.FILES = Crashing(int(options["crash"]))
    if "stale" in options:
        lease.STALE = float(options["stale"])
        lease.BEAT = abs(lease.STALE) / 8
    if "machine" in options:
        pretend(options["machine"])
    plans = {cell_id(i): Plan({"force": False}, [], cell_id(i), str(runs / cell_id(i))) for i in range(cells)}
    numbers = {cell_id(i): i for i in range(cells)}
    job.plan_again = lambda one: plans[one.id]
    job.threads_kept = nullcontext
    cli_run.run_cell = lambda plan: records.settle(plan.folder, compute(numbers[plan.id]))
    schedule = Schedule(
        {i: Planned(i, plans[i].folder, f"toy {numbers[i]}", (), 1.0) for i in plans}, set(plans), cells
    )
    folder = runs / ".sweeps" / new_token()

    def launch(ready: Sequence[Planned]) -> list[job.Outcome]:
        return [job.execute(job.Job(cell.id, (), folder)) for cell in ready]

    return Sweep(Asked("toys", [], []), schedule, folder, launch).run()


def pretend(machine: str) -> None:
    """Be another machine, a day and a half ahead per letter of its name."""
    ahead, now = 1.5 * 86_400 * len(machine), time.time
    time.time = lambda: now() + ahead
    platform.node = lambda: machine
    lease._place = lambda: machine
    atomic._HOST = hashlib.sha256(machine.encode()).hexdigest()[:8]


def naive(path: Path, cells: int, compute: Any) -> int:
    for number in range(cells):
        there = json.loads(path.read_text()) if path.exists() else {}
        if str(number) not in there:
            there[str(number)] = compute(number)
            path.write_text(json.dumps(there))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
