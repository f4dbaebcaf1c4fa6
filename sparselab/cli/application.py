"""The Hydra application behind `run.py`: look at the overrides first, then let Hydra launch."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sparselab.cli.arguments import Arguments, parse
from sparselab.config.compose import CONFIGS
from sparselab.running.run_cell import guarded

if TYPE_CHECKING:
    from sparselab.running.engine import Plan


def main(argv: list[str]) -> int:
    """Run one cell, or with ``-m`` a sweep. Returns the exit code."""
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and os.environ.get("SLURM_PROCID", "0") != "0":
        task = os.environ["SLURM_PROCID"]
        print(f"srun's task {task} has nothing to do: the first starts a process for each device", file=sys.stderr)
        return 0
    return guarded(lambda: _run(parse(argv)), debug="debug=true" in argv)


def _run(asked: Arguments) -> int:
    if asked.help:
        return _help()
    if asked.sweep:
        from sparselab.experiments.sweeps.start import start

        return start(asked.overrides, asked.config_dir)
    from sparselab.running.planning import plan_of

    return _run_with_parents(plan_of(asked.overrides, asked.config_dir))


def _run_with_parents(plan: Plan) -> int:
    """Run the parents of a cell, unless they are finished, and then the cell itself."""
    from sparselab.running.run_cell import run_cell
    from sparselab.storage import record as records

    for parent in plan.parent_plans:
        if records.finished(parent.folder, parent.id) is None:
            code = _run_with_parents(parent)
            if code:
                return code
    return run_cell(plan)


def plans_of(asked: Arguments) -> list[Plan]:
    """The plan of every cell of a sweep; ConfigError with the faults of all of them."""
    from sparselab.config.members import launching
    from sparselab.experiments.sweeps import cells
    from sparselab.experiments.sweeps.start import plans

    launching([], cells.read(asked.overrides, asked.config_dir).hydra, asked.config_dir)
    return plans(asked.overrides, asked.config_dir)


def _help() -> int:
    import hydra

    sys.argv = [sys.argv[0], "--help"]
    hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(lambda config: None)()
    return 0
