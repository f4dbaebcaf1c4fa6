"""Schedules with one mask."""

from __future__ import annotations

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.weights.schedules.base import SCHEDULES, Schedule, beyond, context


@SCHEDULES.register("constant")
class Constant(Schedule):
    """The final sparsity from the start. Methods that make a new mask at every update say so themselves."""

    def updates(self, total: int) -> list[int]:
        return [0]

    def level(self, step: int, total: int) -> float:
        return 1.0


@SCHEDULES.register("one_shot")
class OneShot(Schedule):
    """Dense up to ``at``, then the final sparsity at one stroke."""

    class Options(spec_options.Options):
        at: float = Field(ge=0, description="fraction of the run, from 0 (before training) to 1 (after it)")

    def updates(self, total: int) -> list[int]:
        return [context(self.options.at, total)]

    def level(self, step: int, total: int) -> float:
        return float(step >= context(self.options.at, total))

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        return beyond(where, "at", self.options.at, total)
