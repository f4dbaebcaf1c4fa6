"""Schedules on which the sparsity grows. N:M has no in-between and is refused."""

from __future__ import annotations

from abc import abstractmethod
from math import cos, pi
from typing import ClassVar

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.schedules.base import SCHEDULES, Schedule, context, misplaced


class Ramp(Schedule):
    """Masks at ``begin + i * every`` up to ``end``; the last one always at ``end`` itself, with the final sparsity.

    Where ``every`` does not divide the ramp, its last interval is the shorter one. The first mask, at ``begin``, is
    still dense: n intervals have n + 1 updates.
    """

    patterns = patterns_where(lambda pattern: not pattern.fixed_count)

    class Options(spec_options.Options):
        defaults_from: ClassVar[str] = "schedule/_ramp"

        begin: float = Field(ge=0, description="fraction of the run at which the sparsity begins to grow")
        end: float = Field(ge=0, description="fraction of the run at which the final sparsity is reached")
        every: int = Field(ge=1, description="optimiser updates between two masks, at least 1")

    @abstractmethod
    def shape(self, progress: float) -> float:
        """Level at ``progress`` through the ramp; 0 at 0, 1 at 1, never falling."""

    def _span(self, total: int) -> tuple[int, int]:
        return context(self.options.begin, total), context(self.options.end, total)

    def updates(self, total: int) -> list[int]:
        begin, end = self._span(total)
        return [*range(begin, end, self.options.every), end]

    def level(self, step: int, total: int) -> float:
        begin, end = self._span(total)
        if step >= end:
            return 1.0
        if step < begin:
            return 0.0
        latest = (step - begin) // self.options.every * self.options.every
        return self.shape(latest / (end - begin))

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        begin, end, every = self.options.begin, self.options.end, self.options.every
        if wrong := misplaced(where, begin, end, total):
            return wrong
        first, last = self._span(total)
        if first == last:
            problem = f"the ramp has no steps, both ends fall on step {first:,} of {total:,}"
            return [Issue(f"{where}.end={end:g}", problem, "train longer or widen it")]
        if every > last - first:
            span = f"{last - first:,}"
            return [Issue(f"{where}.every={every}", f"longer than the ramp ({span} steps)", f"at most {span}")]
        return []


@SCHEDULES.register("linear")
class Linear(Ramp):
    """Level = progress."""

    def shape(self, progress: float) -> float:
        return progress


@SCHEDULES.register("cubic")
class Cubic(Ramp):
    """Level = 1 - (1 - progress) ** power: fast at first, slow at the end (Zhu and Gupta, arXiv 1710.01878)."""

    class Options(Ramp.Options):
        power: float = Field(gt=0, description="a number above 0: 3 is the paper's, 1 a line")

    def shape(self, progress: float) -> float:
        return 1 - (1 - progress) ** self.options.power


@SCHEDULES.register("cosine")
class Cosine(Ramp):
    """Level = (1 - cos(pi * progress)) / 2: slow at both ends."""

    def shape(self, progress: float) -> float:
        return (1 - cos(pi * progress)) / 2
