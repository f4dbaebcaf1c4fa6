"""Iterative magnitude pruning: train, prune, go back to early weights, and again."""

from __future__ import annotations

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import Rewinds
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where


@METHODS.register("imp")
class IMP(Rewinds, Method):
    """Rounds of training; after each the smallest weights go and training starts again (Frankle & Carbin 2019).

    ``rewind`` is the place in the first round whose weights every later round starts from (Frankle et al. 2020, arXiv
    1912.05671): 0 is the initialisation, 0.1 a tenth of the round; null lets weights go on from where they are, with
    the learning rate started again (Renda et al. 2020, arXiv 2003.02389). ``optim.cycles`` is ``schedule.rounds + 1``.
    """

    patterns = patterns_where(lambda pattern: pattern.prunes and not pattern.fixed_count)
    schedules = ("rounds",)

    class Options(Options):  # type: ignore[misc, unused-ignore]
        rewind: float | None = Field(ge=0, lt=1, description="fraction of the first round, or null")

    @property
    def rewinds(self) -> float | None:  # type: ignore[override]
        return self.options.rewind
