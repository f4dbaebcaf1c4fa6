"""Mask decay: the final pattern from the start, with pruned weights that fade out instead of vanishing at once."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from math import exp, log

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.schedules.base import FADED, SCHEDULES, Schedule, context, misplaced

LEFT = 0.1
"""The most of a pruned weight that may be left when the mask turns hard: more would be pruning at one stroke."""


class MaskDecay(Schedule):
    """Dense up to ``begin``; pruned weights then count ``soft_coefficient`` times their value, and from ``end`` on nothing.

    t, the argument of the decay, is the number of updates since ``begin``. In the paper's code ``begin`` is its share
    of dense epochs and ``1 - end`` that of fine-tuning with a hard mask.
    """

    patterns = patterns_where(lambda pattern: pattern.prunes)
    soft = True

    class Options(spec_options.Options):
        begin: float = Field(ge=0, description="fraction of the run that is trained dense at first")
        end: float = Field(ge=0, description="fraction of the run from which the mask is hard, in (begin, 1]")
        coef: float | None = Field(gt=0, description="the decay per update (above 0), or null: relative to the run")

    @abstractmethod
    def decay(self, t: int, span: int, total: int) -> float:
        """Return the rest of 1 after ``t`` updates, in a run of ``total`` of which ``span`` lie between begin and end."""

    def _span(self, total: int) -> tuple[int, int]:
        return context(self.options.begin, total), context(self.options.end, total)

    def soft_coefficient(self, step: int, total: int) -> float:
        begin, end = self._span(total)
        return self.decay(max(step - begin, 0), end - begin, total) if step < end else 0.0

    def updates(self, total: int) -> list[int]:
        """The first mask, the time from which pruned weights count as gone, and the end (one may be another)."""
        begin, end = self._span(total)
        steps = range(begin, end)
        gone = begin + bisect_left(steps, True, key=lambda step: self.soft_coefficient(step, total) < FADED)
        return sorted({begin, gone, end})

    def level(self, step: int, total: int) -> float:
        return float(step >= self._span(total)[0])

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        begin, end = self.options.begin, self.options.end
        if wrong := misplaced(where, begin, end, total):
            return wrong
        first, last = self._span(total)
        if first == last:
            problem = f"the decay has no updates, both ends fall on {first:,} of {total:,}"
            return [Issue(f"{where}.end={end:g}", problem, "train longer or widen it")]
        left = self.decay(last - first, last - first, total)
        if left > LEFT:
            problem = f"{left:.2g} of a pruned weight is left at update {last:,}, where the mask turns hard"
            return [Issue(f"{where}.{self.pace()}", problem, self.faster(last - first, total))]
        return []

    @abstractmethod
    def pace(self) -> str:
        """The option that sets how fast it goes, with its value."""

    @abstractmethod
    def faster(self, span: int, total: int) -> str:
        """Return the override for a decay that is nearly over after ``span`` updates."""


@SCHEDULES.register("mask_linear")
class MaskLinear(MaskDecay):
    """MdGf-Linear (arXiv 2402.04744): beta(t) = max(0, 1 - c t), with c = 1 / (end - begin) or ``coef``."""

    class Options(MaskDecay.Options):
        end: float = Field(ge=0, description="fraction of the run from which the mask is hard, in (begin, 1]")

    def decay(self, t: int, span: int, total: int) -> float:
        coef = self.options.coef
        return max(0.0, 1 - t / span if coef is None else 1 - coef * t)

    def pace(self) -> str:
        return f"coef={self.options.coef:g}"

    def faster(self, span: int, total: int) -> str:
        return f"coef=null, or at least {1 / span:.2g}"


@SCHEDULES.register("mask_exp")
class MaskExp(MaskDecay):
    """MdGf-Exponential (arXiv 2402.04744): beta(t) = exp(-c t), with c = ``rate`` / updates of the run, or ``coef``.

    The paper's configuration has c = 1e-4 in about 109,500 updates: a rate of 11.
    """

    class Options(MaskDecay.Options):
        rate: float = Field(gt=0, description="decay over a whole run, as an exponent: above 0 (the paper's: 11)")

    def decay(self, t: int, span: int, total: int) -> float:
        coef = self.options.coef
        return exp(-(self.options.rate / total if coef is None else coef) * t)

    def pace(self) -> str:
        return f"rate={self.options.rate:g}" if self.options.coef is None else f"coef={self.options.coef:g}"

    def faster(self, span: int, total: int) -> str:
        need = -log(0.9 * LEFT) / span  # a little more, so that the rounded number will do
        return f"at least {need * total:.3g}" if self.options.coef is None else f"coef=null, or at least {need:.2g}"
