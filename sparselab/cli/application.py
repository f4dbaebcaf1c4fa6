"""The Hydra application behind `run.py`: look at the overrides first, then let Hydra launch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.cli.arguments import Arguments, parse
from sparselab.cli.run import EXIT_FAILED, EXIT_STOPPED, guarded
from sparselab.spec.compose import CONFIGS
from sparselab.spec.faults import Faults, refuse

if TYPE_CHECKING:
    from sparselab.engines.engine import Plan


def main(argv: list[str]) -> int:
    """Run one cell, or with ``-m`` a sweep. Returns the exit code."""
    return guarded(lambda: _run(parse(argv)), debug="debug=true" in argv)


def _run(asked: Arguments) -> int:
    if asked.help:
        return _help()
    if asked.sweep:
        return _sweep(asked)
    from sparselab.cli.run import run_cell
    from sparselab.planning import plan_of

    return run_cell(plan_of(asked.overrides, asked.config_dir))


def plans_of(asked: Arguments) -> list[Plan]:
    """The plan of every cell of a sweep; Refused with the faults of all of them, so that none runs before."""
    from sparselab.planning import plan_of
    from sparselab.spec.configs import launching
    from sparselab.spec.overrides import TABLE, check, expand

    cells, own = expand(asked.overrides)
    plans, faults = [], Faults()
    for cell in cells:
        if table := next((text for text in cell if text.startswith(f"{TABLE}=")), None):
            refuse(table, "sweeps over a whole table are not there yet", "run its cells one by one, or as a=x,y")
        with faults.catch():
            plans.append(plan_of(cell, asked.config_dir))
    faults.raise_if_any()
    for choices in {tuple(check(cell, asked.config_dir).choices) for cell in cells}:
        launching(list(choices), own, asked.config_dir)
    return plans


def _sweep(asked: Arguments) -> int:
    """Hydra's own application, with its sweeper and launchers, once every cell is known to be sound."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    from sparselab.spec.overrides import for_hydra
    from sparselab.store import record as records

    plans, folder = plans_of(asked), asked.config_dir
    code = 0

    @hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
    def application(config: DictConfig) -> None:
        nonlocal code
        from hydra.core.hydra_config import HydraConfig

        from sparselab.cli.run import run_cell
        from sparselab.planning import plan_of

        if code == EXIT_STOPPED:
            return  # a sweep that was asked to stop starts no further cell
        overrides = [text.removeprefix("++") for text in HydraConfig.get().overrides.task]
        code = max(code, guarded(lambda: run_cell(plan_of(overrides, folder)), config.debug))

    flags = ["--multirun"] if folder is None else ["--multirun", f"--config-dir={Path(folder).resolve()}"]
    sys.argv = [sys.argv[0], *flags, *for_hydra(asked.overrides)]
    try:
        application()
    except HydraException as error:
        refuse("-m", " ".join(str(error).split())[:90], "see hydra/launcher and hydra.launcher.…")
    # Launchers run cells in other processes, whose exit codes never come back: what they left is what counts.
    done = all(records.valid(plan.folder, plan.id) for plan in plans)
    return max(code, 0 if done else EXIT_FAILED)


def _help() -> int:
    import hydra

    sys.argv = [sys.argv[0], "--help"]
    hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(lambda config: None)()
    return 0
