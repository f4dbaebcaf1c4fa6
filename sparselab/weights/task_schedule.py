"""A schedule that begins anew with each task of a scenario [no torch]."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from sparselab.core.sparsity import Sparsity
from sparselab.weights.schedules.base import Schedule

if TYPE_CHECKING:
    from sparselab.core.errors import Issue


class TaskSchedule(Schedule):
    """``one`` for every task by itself. ends: the update after which each task is over. tasks: the epochs of each.

    The first mask of each later task is no update of the schedule: it is made once the task before has been scored.
    """

    def __init__(self, one: Schedule, ends: tuple[int, ...], tasks: tuple[tuple[int, ...], ...] = ()):
        super().__init__(one.options, one.sparsity)
        self.one = one
        self.ones = [one.in_epochs(epochs) for epochs in tasks] or [one] * len(ends)
        self.ends = ends
        self.tasks = tasks
        self.begins = (0, *ends[:-1])

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.one.name

    def for_target(self, sparsity: Sparsity) -> Schedule:
        return TaskSchedule(self.one.for_target(sparsity), self.ends, self.tasks)

    def task(self, step: int) -> int:
        """The task under way after ``step`` updates of the run."""
        return min(bisect_right(self.ends, step), len(self.ends) - 1)

    def within(self, step: int) -> tuple[int, int]:
        """(updates of the task under way that are done, all of its updates) after ``step`` updates of the run."""
        task = self.task(step)
        return step - self.begins[task], self.ends[task] - self.begins[task]

    def updates(self, total: int) -> list[int]:
        found = []
        for one, begin, end in zip(self.ones, self.begins, self.ends, strict=True):
            found += [begin + update for update in one.updates(end - begin) if update or not begin]
        return found

    def level(self, step: int, total: int) -> float:
        return self.ones[self.task(step)].level(*self.within(step))

    def structure(self, step: int, total: int) -> Sparsity | None:
        return self.ones[self.task(step)].structure(*self.within(step))

    def structures(self) -> list[Sparsity]:
        return self.one.structures()

    def fraction(self, step: int, total: int) -> float:
        return self.ones[self.task(step)].fraction(*self.within(step))

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        return self.one.issues(min(end - begin for begin, end in zip(self.begins, self.ends, strict=True)), where)
