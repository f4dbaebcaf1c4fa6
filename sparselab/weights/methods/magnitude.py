"""Magnitude pruning: one-shot, ASP and gradual. They differ in the schedule and in what becomes of pruned values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where


@METHODS.register("magnitude")
class Magnitude(Method):
    """Train dense, keep the largest |w| once at ``schedule.at``, fine-tune what remains with the mask fixed."""

    patterns = patterns_where(lambda pattern: pattern.prunes, whole=True)
    schedules = ("one_shot",)


@METHODS.register("asp")
class ASP(Method):
    """NVIDIA's recipe for N:M: train dense, prune once by magnitude, repeat the training with the mask fixed.

    The second half of the run is the repetition (``schedule.at=0.5``, ``optim.cycles=2`` restarts the learning rate).
    """

    patterns = patterns_where(lambda pattern: pattern.grouped)
    schedules = ("one_shot",)


@METHODS.register("gmp")
class GMP(Method):
    """Gradual magnitude pruning (Zhu & Gupta 2017, arXiv 1710.01878): s_t = s_f (1 - (1 - (t - t0)/(n dt))^3).

    ``pruned_weights``: ``keep`` is the paper's TensorFlow op (a masked weight keeps its value, receives no gradient and
    may return at the next update if it outranks others); ``zero`` is masked training (it restarts from zero).
    In ``keep`` weight decay still acts on the kept values, as it does in the optimiser of every weight.
    """

    class Options(Options):
        pruned_weights: Literal["keep", "zero"] = Field(description="keep or zero")

    @property
    def keeps_master(self) -> bool:  # type: ignore[override]
        return self.options.pruned_weights == "keep"
