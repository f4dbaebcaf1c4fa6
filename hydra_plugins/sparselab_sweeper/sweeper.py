"""Hydra's view of a sweep: a plugin that plans with the project's own code and launches with Hydra's launchers."""

from __future__ import annotations

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SparselabSweeper(Sweeper):
    """Made by ``hydra/sweeper=sparselab``; ``sweep`` returns an exit code. All settings come from ``python run.py -m``.

    asked: the words of the command line. config_dir: its folder of configs. token: names the sweep. cell, paper, tier:
    for one job, what it is.
    """

    def __init__(
        self,
        asked: list[str],
        config_dir: str | None,
        token: str,
        cell: str | None = None,
        paper: str | None = None,
        tier: str | None = None,
    ):
        self.asked, self.config_dir, self.token = list(asked), config_dir, token

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launcher(self) -> Launcher:
        """The launcher of the user's choice, as ``config`` describes it now."""
        from hydra.core.plugins import Plugins

        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from sparselab.experiments.sweeps.start import sweep

        return sweep(self.launcher, self.config, self.asked, self.config_dir, self.token)
