"""The schedule of iterative pruning: equal rounds of training, a share of what remains goes after each."""

from __future__ import annotations

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.schedules.base import SCHEDULES, Schedule, context


@SCHEDULES.register("rounds")
class Rounds(Schedule):
    """``rounds`` masks cut the run into ``rounds + 1`` equal parts; ``rate`` of what remains goes at each.

    Level after i of r masks: (1 - q^i) / (1 - q^r) with q = 1 - rate, so that the density is q^i where the request is
    q^r (and in proportion where it is another one). A density k needs the smallest r with q^r <= k.
    """

    patterns = patterns_where(lambda pattern: not pattern.fixed_count)

    class Options(spec_options.Options):
        rounds: int = Field(ge=1, description="how often is pruned, at least 1")
        rate: float = Field(gt=0, lt=1, description="share of what remains that goes at each, in (0, 1)")

    def updates(self, total: int) -> list[int]:
        parts = self.options.rounds + 1
        return [context(i / parts, total) for i in range(1, parts)]

    def level(self, step: int, total: int) -> float:
        made = sum(step >= update for update in self.updates(total))
        left = 1 - self.options.rate
        return (1 - left**made) / (1 - left**self.options.rounds)

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        rounds = self.options.rounds
        if rounds + 1 <= total:
            return []
        problem = f"{rounds + 1} parts of {total:,} updates"
        return [Issue(f"{where}.rounds={rounds}", problem, f"at most {total - 1:,}" if total > 1 else "train longer")]
