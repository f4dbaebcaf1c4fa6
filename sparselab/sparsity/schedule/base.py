"""The contract of a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from sparselab.sparsity.count import nearest_count
from sparselab.spec import options as spec_options
from sparselab.spec.faults import Fault
from sparselab.spec.registry import Registry

ALL_PATTERNS = ("dense", "unstructured", "nm", "block", "channel")


class Schedule(ABC):
    """Times are optimiser updates: 0 is before training, k is after the k-th update, ``total`` is the end of the run.

    In options, ``begin``, ``end``, ``at`` and ``stop`` are fractions of the run (rounded to the nearest update, halves
    up) and ``every`` is a number of updates. Built from validated options, kept as ``self.options``.

    patterns: the kinds of :class:`~sparselab.spec.sparsity.Sparsity` that it is defined for.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ALL_PATTERNS

    class Options(spec_options.Options):
        pass

    def __init__(self, options: spec_options.Options):
        self.options: Any = options  # an instance of the class's own Options

    @abstractmethod
    def updates(self, total: int) -> list[int]:
        """The times, ascending, at which a new mask is made."""

    @abstractmethod
    def level(self, step: int, total: int) -> float:
        """Share of the way from dense (0) to the final sparsity (1) in force after ``step`` updates.

        It only changes at :meth:`updates`, and is 1 from the last of them on.
        """

    def fraction(self, step: int, total: int) -> float:
        """Share of its connections that a periodic method exchanges at ``step``; 0 where nothing is exchanged."""
        return 0.0

    def faults(self, total: int, where: str = "schedule") -> list[Fault]:
        """What keeps this schedule from reaching its end in a run of ``total`` updates."""
        return []


SCHEDULES: Registry[Schedule] = Registry("schedule", "sparselab.sparsity.schedule")


def moment(fraction: float, total: int) -> int:
    """The update nearest to ``fraction`` of a run of ``total`` updates."""
    return nearest_count(fraction, total)


def beyond(where: str, key: str, fraction: float, total: int) -> list[Fault]:
    """The fault of a time that lies after the end of the run, if it does."""
    if fraction <= 1:
        return []
    return [Fault(f"{where}.{key}={fraction:g}", f"after the last step ({total:,})", "at most 1.0")]
