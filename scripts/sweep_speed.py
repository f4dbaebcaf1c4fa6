"""Measure the cost of a sweep besides its cells: `python scripts/sweep_speed.py`. Figures for the README.

Planning: 1,000 cells of which 900 are finished, from the command line to the first launch. Per cell: what the in-process
launcher adds to calling the engine directly.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
COMMON = [
    "method=srste",
    "sparsity=2:4",
    "model=mlp",
    "trainer.max_epochs=null",
    "trainer.max_steps=2",
    "trainer.evals=0",
]


def planning(runs: Path, cells: int = 1000, done: int = 900) -> float:
    """Seconds of processor from importing nothing to knowing which cells are missing."""
    import subprocess

    from sparselab.core.memo import sharing
    from sparselab.running.planning import plan_of
    from sparselab.storage import record as records

    words = [
        *COMMON,
        f"runs_dir={runs}",
        f"seed=range(0,{cells // 10})",
        "optim.lr=" + ",".join(f"{i}e-4" for i in range(1, 11)),
    ]
    with sharing():
        for number in range(done):
            seed, rate = divmod(number, 10)
            plan = plan_of([*COMMON, f"runs_dir={runs}", f"seed={seed}", f"optim.lr={rate + 1}e-4"])
            layers = [
                {"name": f"layers.{i}", "shape": [512, 512], "nonzero": 131072, "density": 0.5} for i in range(50)
            ]
            body = {
                "id": plan.id,
                "status": "finished",
                "config": plan.recorded_config(),
                "metrics": {"test.accuracy": 0.5},
            }
            records.write(plan.folder, {**body, "sparsity": {"layers": layers}})
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from sparselab.experiments.sweeps import cells, state\n"
        "plan = cells.schedule(cells.plan(cells.read(sys.argv[2:])))\n"
        "missing = [c for c in plan.cells.values() if not state.done(c.folder, c.id)]\n"
        "print(len(plan.cells), len(missing), time.process_time(), 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout
    found, missing, seconds, torch = out.split()
    assert (int(found), int(missing), torch) == (cells, cells - done, "False"), out
    return float(seconds)


def per_cell(runs: Path, count: int = 8) -> tuple[float, float]:
    """Seconds of processor of a cell in a sweep, and of its engine called directly; the first of each is not counted."""
    from sparselab.experiments.sweeps import start
    from sparselab.running.planning import engine_of, plan_of

    times: list[float] = []
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for seed in range(count):
            plan = plan_of([*COMMON, f"runs_dir={runs}/direct", f"seed={seed}"])
            began = time.process_time()
            engine_of(plan.config).run(plan)
            times.append(time.process_time() - began)
        start.start([*COMMON, f"runs_dir={runs}/sweep", "seed=0"])
        began = time.process_time()
        start.start([*COMMON, f"runs_dir={runs}/sweep", f"seed=range(1,{count})"])
        swept = (time.process_time() - began) / (count - 1)
    return swept, sum(times[1:]) / (count - 1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds = planning(Path(folder) / "plan")
        print(f"planning 1,000 cells, 900 of them finished   {seconds:.2f} s of processor")
        swept, direct = per_cell(Path(folder))
        print(f"a cell in a sweep, in process                {swept:.3f} s")
        print(f"the engine called directly                   {direct:.3f} s")
        print(f"overhead of a cell                           {swept - direct:.3f} s")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
