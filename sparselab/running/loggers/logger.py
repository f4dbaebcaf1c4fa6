"""Trackers: where the rows of a run's history go besides its CSV. None is imported unless asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.running.engine import Plan


class Logger:
    """A sink for rows of numbers. A tracker that fails costs one warning, never a run."""

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""

    def __init__(self, options: Any):
        self.options = options

    def open(self, plan: Plan) -> None:
        """Before training."""

    def log(self, row: dict[str, float]) -> None:
        """One row of the history."""

    def close(self) -> None:
        """After training, also when it failed."""


LOGGERS: Registry[Logger] = Registry("logger", "sparselab.running.loggers")


@LOGGERS.register("csv")
class Csv(Logger):
    """Nothing beside ``metrics.csv``, which every run writes."""


@LOGGERS.register("wandb")
class Wandb(Logger):
    """Weights & Biases: the run's id is the cell's, its group the paper, so a restart continues the same run."""

    class Options(AnyOptions):
        project: str = Field(description="a project's name")
        entity: str | None = Field(description="a team's name, or null")
        mode: Literal["online", "offline"] = Field(description="online or offline")

    options: Options

    def open(self, plan: Plan) -> None:
        import wandb

        Path(plan.folder).mkdir(parents=True, exist_ok=True)  # where it is missing, wandb writes to a temporary folder
        self.run = wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            mode=self.options.mode,
            id=plan.id,
            group=plan.config.get("paper"),
            resume="allow",
            dir=plan.folder,
            config=plan.recorded_config(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, row: dict[str, float]) -> None:
        self.run.log(row, step=int(row["step"]))

    def close(self) -> None:
        self.run.finish()


class Guarded:
    """A logger whose failure is one line on stderr; from then on it is silent and the run goes on."""

    def __init__(self, logger: Logger, plan: Plan):
        self.logger = logger
        self.alive = True
        self._try("open", plan)

    def _try(self, call: str, *arguments: Any) -> None:
        if not self.alive:
            return
        try:
            getattr(self.logger, call)(*arguments)
        except Exception as error:
            self.alive = False
            reason = " ".join(str(error).split())[:90]
            print(f"logger={self.logger.name}: {reason} — the run goes on without it", file=sys.stderr)

    def log(self, row: dict[str, float]) -> None:
        self._try("log", row)

    def close(self) -> None:
        self._try("close")
