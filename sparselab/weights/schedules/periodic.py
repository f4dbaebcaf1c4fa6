"""The schedule of methods that exchange connections at a fixed sparsity (SET, RigL)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, cos, pi
from typing import Literal

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.options import off
from sparselab.weights.schedules.base import SCHEDULES, Schedule, beyond

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + cos(pi * progress)) / 2,
}
"""The share of the initial fraction that is left, by progress from 0 to 1 on the way to ``stop``."""


@SCHEDULES.register("periodic")
class Periodic(Schedule):
    """A first mask before training, then an exchange every ``every`` updates while 0 < step < stop * total.

    The defaults are RigL's, as in Sparse-IFT's repository (``cbsparse/sparse/optimizers/{dynamic,rigl}.py``):
    fraction(step) = fraction / 2 * (1 + cos(pi * step / (stop * total))). With ``floor`` it falls to that: DSL's
    (shuyao-wang/DSL, CosineDecay) is 0.005 + (0.5 - 0.005) / 2 * (1 + cos(pi * step / total)).
    """

    class Options(spec_options.Options):
        every: int = Field(ge=1, description="optimiser updates between two exchanges, at least 1")
        stop: float = Field(gt=0, description="fraction of the run after which the mask stays, in (0, 1]")
        fraction: float = Field(gt=0, le=1, description="share of a layer's connections exchanged at first")
        decay: Literal["cosine", "linear", "constant"] = Field(description="cosine, linear or constant")
        floor: float = off(0.0, ge=0, le=1, description="share of connections exchanged at the end, at most the first")

    def _stop(self, total: int) -> Fraction:
        return Fraction(repr(self.options.stop)) * total

    def updates(self, total: int) -> list[int]:
        return [0, *range(self.options.every, ceil(self._stop(total)), self.options.every)]

    def level(self, step: int, total: int) -> float:
        return 1.0

    def fraction(self, step: int, total: int) -> float:
        stop = self._stop(total)
        if step >= stop:
            return 0.0
        o = self.options
        return o.floor + (o.fraction - o.floor) * DECAYS[o.decay](float(step / stop))

    def issues(self, total: int, where: str = "schedule") -> list[Issue]:
        if self.options.floor > self.options.fraction:
            problem = f"is more than fraction={self.options.fraction:g}, from which the share falls"
            return [Issue(f"{where}.floor={self.options.floor:g}", problem, "write at most that")]
        late = beyond(where, "stop", self.options.stop, total)
        if late:
            return late
        last = ceil(self._stop(total)) - 1
        if self.options.every > last:
            problem = f"no exchange: the mask freezes at step {last + 1:,}"
            fix = f"at most {last:,}" if last else "train longer"
            return [Issue(f"{where}.every={self.options.every}", problem, fix)]
        return []
