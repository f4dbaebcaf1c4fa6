"""The contract of a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.registry import Registry
from sparselab.core.sparsity import Sparsity
from sparselab.weights.count import nearest_count
from sparselab.weights.patterns.admitted import patterns_where

FADED = 1e-3
"""The share of its value below which a pruned weight counts as gone when costs are counted."""

DENSE = Sparsity.parse("dense")


class Schedule(ABC):
    """Times are optimiser updates: 0 is before training, k is after the k-th update, ``total`` is the end of the run.

    In options, ``begin``, ``end``, ``at`` and ``stop`` are fractions of the run (rounded to the nearest update, halves
    up) and ``every`` is a number of updates. Built from validated options, kept as ``self.options``, and the
    ``sparsity`` that it leads to, which the plan sets as soon as it knows, as it does ``epochs``: the update after which each
    epoch of the run is over (they may differ in length), for schedules that count in these; empty where nobody knows.

    patterns: the names of the patterns (:data:`~sparselab.core.sparsity.PATTERNS`) that it is defined for.
    soft:     :meth:`soft_coefficient` is above 0 for a while; a method that carries this out has to name the schedule.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = patterns_where(lambda pattern: True, whole=True, shared=True)
    soft: ClassVar[bool] = False

    class Options(spec_options.Options):
        pass

    def __init__(self, options: spec_options.Options, sparsity: Sparsity = DENSE):
        self.options: Any = options  # an instance of the class's own Options
        self.sparsity = sparsity
        self.epochs: tuple[int, ...] = ()

    def for_target(self, sparsity: Sparsity) -> Schedule:
        """The same schedule, on its way to another sparsity."""
        found = type(self)(self.options, sparsity)
        found.epochs = self.epochs
        return found

    def in_epochs(self, epochs: tuple[int, ...]) -> Schedule:
        """The same schedule, for a run of other epochs."""
        found = type(self)(self.options, self.sparsity)
        found.epochs = epochs
        return found

    @abstractmethod
    def updates(self, total: int) -> list[int]:
        """The times, ascending, at which a new mask is made.

        Args:
            total: updates of the run

        Returns:
            Numbers of updates, from 0 (before training) to ``total`` (after the last).
        """

    @abstractmethod
    def level(self, step: int, total: int) -> float:
        """Return the share of the way from dense (0) to the final sparsity (1) in force after ``step`` updates.

        It only changes at :meth:`updates`, and is 1 from the last of them on.

        Args:
            step: updates done, from 0
            total: updates of the run

        Returns:
            From 0 to 1.
        """

    def structure(self, step: int, total: int) -> Sparsity | None:
        """The structure of a mask made after ``step`` updates, on the way to the final one; None: always the final one.

        It changes at :meth:`updates` only, is final from the last of them on, and agrees with :meth:`level`.
        """
        return None

    def structures(self) -> list[Sparsity]:
        """Every structure that masks have on the way, in order; the last one is the final one."""
        return [self.sparsity]

    def soft_coefficient(self, step: int, total: int) -> float:
        """Share of its value with which a pruned weight still takes part after ``step`` updates; 0 at the end.

        Args:
            step: updates done, from 0
            total: updates of the run

        Returns:
            From 0 to 1.
        """
        return 0.0

    def costing(self, step: int, total: int) -> float:
        """:meth:`level` for the cost: 0 (dense) as long as pruned weights still take part."""
        return 0.0 if self.soft_coefficient(step, total) >= FADED else self.level(step, total)

    def fraction(self, step: int, total: int) -> float:
        """Share of its connections that a periodic method exchanges at ``step``; 0 where nothing is exchanged."""
        return 0.0

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        """Return the issues that keep this schedule from reaching its end in ``total`` updates."""
        return []


SCHEDULES: Registry[Schedule] = Registry("schedule", "sparselab.weights.schedules")


def context(fraction: float, total: int) -> int:
    """The update nearest to ``fraction`` of a run of ``total`` updates."""
    return nearest_count(fraction, total)


def beyond(where: str, key: str, fraction: float, total: int) -> list[Issue]:
    """The fault of a time that lies after the end of the run, if it does."""
    if fraction <= 1:
        return []
    return [Issue(f"{where}.{key}={fraction:g}", f"after the last step ({total:,})", "at most 1.0")]


def misplaced(where: str, begin: float, end: float, total: int) -> list[Issue]:
    """The faults of a span that lies after the end of the run, or ends before it begins."""
    late = [*beyond(where, "begin", begin, total), *beyond(where, "end", end, total)]
    if late or end > begin:
        return late
    return [Issue(f"{where}.end={end:g}", f"not after {where}.begin={begin:g}", f"above {begin:g}")]
