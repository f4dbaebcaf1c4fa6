"""`python run.py -m`: Hydra is asked to sweep, with the project's sweeper and the launcher of the user's choice.

Nothing that the user typed about cells goes through Hydra's composition of the sweep itself: the words are handed to
the sweeper as they are, and it plans every cell before any runs.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.config.members import CONFIGS, launching, sources
from sparselab.config.overrides import for_hydra
from sparselab.config.plain import quoted
from sparselab.core.errors import ConfigError, refuse
from sparselab.core.processor import decided
from sparselab.experiments.sweeps import cells
from sparselab.experiments.sweeps.job import Job, Outcome, execute, task
from sparselab.experiments.sweeps.sweep import LauncherBroke, Sweep, new_token

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig

    from sparselab.running.engine import Plan

SWEEPS = ".sweeps"  # in the runs folder: a folder for each sweep that is going on


def start(overrides: list[str], config_dir: str | None = None) -> int:
    """Run a sweep to its end; returns its exit code. ConfigError, with nothing begun, where any cell cannot run."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    # The launchers' settings are checked against submitit's own; that is wanted, and nothing to warn of.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    own = cells.read(overrides, config_dir).hydra
    launching([], own, config_dir)
    own = [*own, f"hydra.sweeper.token={new_token()}", f"hydra.sweeper.asked=[{','.join(map(quoted, overrides))}]"]
    if folders := sources(config_dir):
        own.append(f"hydra.searchpath=[{','.join(map(quoted, folders))}]")
    if config_dir is not None:
        own.append(f"hydra.sweeper.config_dir={quoted(str(Path(config_dir).resolve()))}")
    _let_workers_find_us()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), job_name="sparselab", version_base="1.3"):
            return GlobalHydra.instance().hydra.multirun(  # type: ignore[union-attr]
                "config", task, own
            )
    except HydraException as error:
        refuse("-m", " ".join(str(error).split())[:90], "see hydra/launcher and hydra.launcher.…")


def plans(overrides: list[str], config_dir: str | None = None) -> list[Plan]:
    """The plan of every cell that is asked for; ConfigError with the faults of all of them."""
    return [plan for _, plan in cells.plan(cells.read(overrides, config_dir), config_dir)]


def sweep(
    make_launcher: Callable[[], Launcher], config: DictConfig, asked: Sequence[str], config_dir: str | None, token: str
) -> int:
    """Plan, run what is missing, conclude: the work of the sweeper plugin. Returns the exit code."""
    wanted = cells.read(list(asked), config_dir)
    planned = cells.plan(wanted, config_dir)
    schedule = cells.schedule(planned)
    folder = Path(planned[0][1].config["runs_dir"]) / SWEEPS / token
    config.hydra.sweep.dir = str(folder)
    if config.hydra.runtime.choices["hydra/launcher"] == "basic":
        return Sweep(wanted, schedule, folder, partial(one_by_one, wanted, folder, config_dir)).run()
    launcher = make_launcher()
    started = 0

    def launch(ready: Sequence[cells.Planned]) -> list[Outcome | None]:
        nonlocal started
        jobs = [_job(cell, wanted) for cell in ready]
        started += len(jobs)
        try:
            with decided():  # another machine may compute other things natively, and its cells would be others
                returns = launcher.launch(jobs, initial_job_idx=started - len(jobs))
        except ConfigError:
            raise
        except Exception as error:  # a worker that was killed, a scheduler that does not answer
            raise LauncherBroke(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from error
        return [_outcome(cell, one) for cell, one in zip(ready, returns, strict=True)]

    return Sweep(wanted, schedule, folder, launch).run()


def one_by_one(
    asked: cells.Asked, folder: Path, config_dir: str | None, ready: Sequence[cells.Planned]
) -> list[Outcome | None]:
    """Run cells in this process, one after the other. Hydra's own launcher would compose the sweep's config for each.

    folder: of the sweep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Outcome | None] = []
    with decided():
        for cell in ready:
            try:
                found.append(execute(Job(cell.id, cell.overrides, folder, config_dir, asked.paper, asked.tier)))
            except Exception as error:
                found.append(Outcome(cell.id, "failed", _in_a_line(error)))
    return found


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _job(cell: cells.Planned, asked: cells.Asked) -> list[str]:
    labels = [
        f"hydra.sweeper.{key}={quoted(value)}" for key, value in (("paper", asked.paper), ("tier", asked.tier)) if value
    ]
    return [*for_hydra(list(cell.overrides)), f"hydra.sweeper.cell={quoted(cell.id)}", *labels]


def _outcome(cell: cells.Planned, returned: JobReturn | None) -> Outcome | None:
    """Return the outcome of a job; None if there is none."""
    if returned is None:
        return None
    try:
        value: Any = returned.return_value
    except subprocess.SubprocessError:  # a signal before the cell began; submitit's scontrol did not outlive the job
        return None
    except Exception as error:
        return Outcome(cell.id, "failed", _in_a_line(error))
    return Outcome(**value)


def _let_workers_find_us() -> None:
    """Launchers start Python anew; what they unpickle lies in this repository."""
    paths = [str(CONFIGS.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
