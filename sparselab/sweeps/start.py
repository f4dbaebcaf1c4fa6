"""`python run.py -m`: plan every cell, then let Hydra's sweeper hand the missing ones to a launcher. [no torch]"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.spec.configs import CONFIGS
from sparselab.spec.faults import Refused, refuse, short
from sparselab.sweeps.cells import Asked, Planned, plan, read, schedule
from sparselab.sweeps.job import task
from sparselab.sweeps.sweep import new_token

if TYPE_CHECKING:
    from sparselab.engines.engine import Plan

ROOT = CONFIGS.parent


def start(overrides: list[str], config_dir: str | None = None) -> int:
    """Run a sweep to its end; returns its exit code. Refused, with nothing begun, where any cell cannot run."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    asked, _ = plans(overrides, config_dir)
    _workers_find_us()
    own = [*asked.hydra, f"hydra.sweeper.token={new_token()}", f"hydra.sweeper.asked=[{','.join(map(quoted, overrides))}]"]
    if config_dir is not None:
        folder = str(Path(config_dir).resolve())
        own += [f"hydra.searchpath=[{quoted(f'file://{folder}')}]", f"hydra.sweeper.config_dir={quoted(folder)}"]
    with initialize_config_dir(str(CONFIGS), job_name="sparselab", version_base="1.3"):
        return GlobalHydra.instance().hydra.multirun("config", task, own)
