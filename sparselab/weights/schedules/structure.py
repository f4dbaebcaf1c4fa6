"""N:M structure decay: masks are binary, and what they keep of each group shrinks in stages."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from typing import Literal

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.sparsity import Sparsity
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.patterns.kinds.n_of_m import NOfM
from sparselab.weights.schedules.base import SCHEDULES, Schedule, context, misplaced


class StructureDecay(Schedule):
    """Dense up to ``begin``; then equally long stages up to ``end``. The last one, the final N:M, lasts to the end.

    Stage i of n starts at begin + floor(i * (end - begin) / n). In the paper's code ``begin`` is its share of dense
    epochs and ``1 - end`` that of fine-tuning. Another rule is a subclass with its :meth:`stages`.
    """

    patterns = patterns_where(lambda pattern: pattern.grouped)

    class Options(spec_options.Options):
        begin: float = Field(ge=0, description="fraction of the run that is trained dense at first")
        end: float = Field(ge=0, description="fraction of the run at which the stages end, in (begin, 1]")

    @abstractmethod
    def stages(self, n: int, m: int) -> list[tuple[int, int]]:
        """N and M of every stage on the way to N:M, which is the last one."""

    def structures(self) -> list[Sparsity]:
        if (asked := self.sparsity.n_of_m) is None:  # not an N:M sparsity, which the plan refuses
            return [self.sparsity]
        return [*(NOfM.of(n, m) for n, m in self.stages(*asked)[:-1]), self.sparsity]

    def updates(self, total: int) -> list[int]:
        begin, end = context(self.options.begin, total), context(self.options.end, total)
        count = len(self.structures())
        return [begin + i * (end - begin) // count for i in range(count)]

    def structure(self, step: int, total: int) -> Sparsity | None:
        return self.structures()[max(bisect_right(self.updates(total), step) - 1, 0)]

    def level(self, step: int, total: int) -> float:
        structure = self.structure(step, total)
        if structure is None or step < self.updates(total)[0]:
            return 0.0
        return (1 - structure.density) / (1 - self.sparsity.density) if self.sparsity.density < 1 else 1.0

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        begin, end = self.options.begin, self.options.end
        if wrong := misplaced(where, begin, end, total):
            return wrong
        steps, stages = context(end, total) - context(begin, total), len(self.structures())
        if steps < stages:
            return [Issue(f"{where}.end={end:g}", f"{stages} stages and {steps:,} updates for them", "train longer")]
        return []


@SCHEDULES.register("stepwise")
class Stepwise(StructureDecay):
    """SdGf-Stepwise (arXiv 2402.04744): M-1:M, M/2:M, M/4:M ... N:M. 1:8 goes through 7:8, 4:8, 2:8 and 1:8."""

    def stages(self, n: int, m: int) -> list[tuple[int, int]]:
        halves = [m >> i for i in range(1, m.bit_length()) if m >> i > n]
        kept = sorted({m - 1, *halves, n}, reverse=True) if n < m else [n]
        return [(count, m) for count in kept]


@SCHEDULES.register("geometric")
class Geometric(StructureDecay):
    """SdGf-Geometric (arXiv 2402.04744): kN:kM with k halved from ``k_max`` to 1, always of the final density.

    The released code starts at k = 8, the paper's text at 16 (five stages); smaller ones are for layers too narrow for
    groups of k_max * M.
    """

    class Options(StructureDecay.Options):
        k_max: Literal[2, 4, 8, 16] = Field(description="2, 4, 8 (the released code) or 16 (the paper's text)")

    def stages(self, n: int, m: int) -> list[tuple[int, int]]:
        k = self.options.k_max
        return [(n * (k >> i), m * (k >> i)) for i in range(k.bit_length())]
