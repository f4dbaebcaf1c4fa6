"""From a command to its answer, in processes of their own, against importing torch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparselab.tools.bench.timing import Row, quartiles

SECTION = "Starting, in processor seconds of a process of its own, against `import torch`"
ROOT = Path(__file__).parents[3]
CELL = ["method=srste", "sparsity=2:4", "trainer.max_epochs=null", "trainer.evals=0", "trainer.progress=none"]
ROUNDS = 3


def rows(device: str) -> Iterator[Row]:
    python, run = [sys.executable], str(ROOT / "run.py")
    with tempfile.TemporaryDirectory() as folder:
        vit = [*CELL, "model=vit_ti", "trainer.max_steps=1", "trainer.batch_size=4", "force=true", f"runs_dir={folder}"]
        mlp = [*CELL, "model=mlp", "trainer.max_steps=2", f"runs_dir={folder}/sweep", "force=true"]
        commands = {
            "import torch": [*python, "-c", "import torch"],
            "run.py --help": [*python, run, "--help"],
            "sparselab check": [*python, "-m", "sparselab.cli.main", "check", "method=srste", "sparsity=2:4", "model=vit_s"],
            "one update of a timm model, and its record": [*python, run, *vit, "dataset.limit_test=8", "dataset.val=8"],
            "a sweep of one tiny cell": [*python, run, "-m", *mlp, "seed=0"],
            "a sweep of five tiny cells": [*python, run, "-m", *mlp, "seed=0,1,2,3,4"],
        }  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                took = spent(command)
                if turn:
                    times[name].append(took)
    base = times["import torch"]
    middle = quartiles(base)[1]
    times["a further cell of the sweep"] = [
        (five - one) / 4
        for five, one in zip(times.pop("a sweep of five tiny cells"), times["a sweep of one tiny cell"], strict=True)
    ]
    goals = {"run.py --help": 1.0, "sparselab check": 1.0, "one update of a timm model, and its record": 6.0}
    goals["a further cell of the sweep"] = 0.3
    for name, seconds in times.items():
        if name == "import torch":
            continue
        ratio = quartiles([a / b for a, b in zip(seconds, base, strict=True)])
        asked = f", asked for: {goals[name]:g}" if name in goals else ""
        yield Row(SECTION, name, "import torch", ratio, middle, ROUNDS, None, f"{quartiles(seconds)[1]:.2f} s{asked}")


def spent(command: list[str]) -> float:
    """Processor seconds of a process and its children; RuntimeError with its words where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])} ended with {done.returncode}: {done.stderr[-400:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
