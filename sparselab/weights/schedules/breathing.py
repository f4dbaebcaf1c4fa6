"""The schedule of masks that widen for a new task and narrow again."""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field, field_validator

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.points import FORM, point_of
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.schedules.base import SCHEDULES, Schedule


@SCHEDULES.register("breathing")
class Breathing(Schedule):
    """SparCL's (arXiv 2209.09476, neu-spiral/SparCL ``prune_utils/retrain.py``, ``--lower-bound``, ``--upper-bound``).

    With the sparsity s of the request: the first mask is pruned to s and grows to s - ``room``; those every ``every`` are
    pruned to s + ``exchange`` and grow to s; the last one, not after ``stop``, is pruned to s and stays.
    """

    patterns = patterns_where(lambda pattern: pattern.free)

    class Options(spec_options.Options):
        every: int | str = Field(description=f"between two masks: {FORM}")
        stop: float = Field(gt=0, lt=1, description="fraction of the run after which the mask stays, in (0, 1)")
        room: float = Field(ge=0, lt=1, description="share of all weights kept beyond the request at first, in [0, 1)")
        exchange: float = Field(ge=0, lt=1, description="share of all weights exchanged at a time, in [0, 1)")

        @field_validator("every")
        @classmethod
        def _a_point(cls, point: int | str) -> int | str:
            if point_of(point) in (None, "0", "0epochs"):
                raise ValueError("is no length of time")
            return point

    def _later(self, total: int) -> list[int]:
        """The updates of all masks but the first."""
        every, stop = point_of(self.options.every) or "", Fraction(repr(self.options.stop))
        if every.isdigit():
            return [*range(int(every), int(stop * total) + 1, int(every))]
        each, last = int(every.removesuffix("epochs")), int(stop * len(self.epochs))
        return [at for epoch in range(each, last + 1, each) if (at := self.epochs[epoch - 1]) < total]

    def updates(self, total: int) -> list[int]:
        return [0, *self._later(total)]

    def level(self, step: int, total: int) -> float:
        removed = self.sparsity.sparsity
        return (removed - self.options.room) / removed if removed and self._wide(step, total) else 1.0

    def _wide(self, step: int, total: int) -> bool:
        """True before the first exchange."""
        return step < next(iter(self._later(total)), total)

    def fraction(self, step: int, total: int) -> float:
        """Share of the connections of the mask made at ``step`` that have just grown."""
        kept, later = 1 - self.sparsity.sparsity, self._later(total)
        if self._wide(step, total):
            return self.options.room / (kept + self.options.room)
        return 0.0 if not later or step >= later[-1] else self.options.exchange / kept

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        o, removed = self.options, self.sparsity.sparsity
        in_epochs = not (point_of(o.every) or "").isdigit()
        if not removed or (in_epochs and not self.epochs):  # nothing to say yet
            return []
        if o.room >= removed:
            problem = f"as much as the request removes ({removed:g}), or more"
            return [Issue(f"{where}.room={o.room:g}", problem, f"write less than {removed:g}")]
        if o.exchange >= round(1 - removed, 12):
            problem = f"as much as the request keeps ({1 - removed:g}), or more"
            return [Issue(f"{where}.exchange={o.exchange:g}", problem, f"write less than {1 - removed:g}")]
        if not self._later(total):
            length, unit = (len(self.epochs), "epochs") if in_epochs else (total, "updates")
            most = int(Fraction(repr(o.stop)) * length)
            problem = f"no mask after the first: {length:,} {unit}, and the mask stays after {o.stop:g} of them"
            fix = f"at most {most}{'epochs' if in_epochs else ''}" if most else "train longer"
            return [Issue(f"{where}.every={o.every}", problem, fix)]
        return []
