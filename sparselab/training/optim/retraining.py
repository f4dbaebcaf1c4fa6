"""Learning rates of retraining after pruning, told from those of the training before it [no torch].

The six schedules that arXiv 2306.16788 chooses from (its code's ``define_retrain_schedule``); rates are fractions of the
largest one of the training before, which is ``optim.lr``. T is the length of the retraining in updates.

| name | rate after the warm-up | then |
| --- | --- | --- |
| ft | the smallest of the training before | stays (Han et al. 2015) |
| lrw | that of T updates before the end | the last T rates again (Renda et al. 2020) |
| slr | the largest | all rates of the training before, compressed (Le and Hua 2021) |
| clr | the largest | half a cosine to the smallest (Le and Hua 2021) |
| llr | the largest | linear to 0 (Zimmer et al. 2023) |
| allr | the largest, less where pruning removed little | linear to 0 (Zimmer et al. 2023) |

A warm-up is half a cosine from 0 over ``optim.warmup`` of the updates; the paper has 0.1, and none for ft and lrw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.points import FORM, point_of

RETRAINING = ("ft", "lrw", "slr", "clr", "llr", "allr")
"""Names of the schedules."""
ALONE = ("llr",)
"""Those that only the largest rate of the training before counts for."""
ADAPTIVE = "allr"
TOLD = "optim.pretraining={length: 8epochs, schedule: linear}"


class Pretraining(Options):
    """The rates of the training before: a schedule, and how long it ran; its peak is ``optim.lr``."""

    length: int | str = Field(description=f"{FORM}: how long it was")
    schedule: Literal["constant", "cosine", "linear", "step"] = Field(
        "linear", description="constant, cosine, linear or step"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of it with a linear warm-up, in [0, 1)")
    min_factor: float = Field(0.0, ge=0, le=1, description="last learning rate over the peak, in [0, 1]")
    cycles: int = Field(1, ge=1, description="how often the schedule ran through")
    milestones: list[float] = Field([0.5, 0.75], description="for schedule=step: fractions of the run, ascending")
    gamma: float = Field(0.1, gt=0, le=1, description="for schedule=step: factor at each milestone, in (0, 1]")

    @field_validator("length")
    @classmethod
    def _a_length(cls, length: int | str) -> int | str:
        if point_of(length) in (None, "0", "0epochs"):
            raise ValueError("is no length of a training")
        return length


@dataclass(frozen=True)
class Past:
    """The rates of the training before, update by update, as fractions of the largest. warm: updates of its warm-up."""

    rates: tuple[float, ...]
    warm: int = 0

    @property
    def least(self) -> float:
        """The smallest rate after the warm-up."""
        return min(self.rates[self.warm :])


def rate(name: str, step: int, total: int, warmup: float, past: Past, cut: float | None = None) -> float:
    """The rate of update ``step`` (from 0) of ``total``, as a fraction of the largest rate of the training before.

    cut: for allr, :func:`relative_drop` of the pruning; None while it is not measured yet.
    """
    warm = int(warmup * total + 1e-9)
    rest = max(total - warm, 1)
    peak = _start(name, rest, total, past, cut)
    if step < warm:
        return peak * (1 - math.cos(math.pi * step / warm)) / 2
    at = step - warm
    if name == "ft":
        return peak
    if name == "lrw":
        return past.rates[min(len(past.rates) - rest + at, len(past.rates) - 1)]
    if name == "slr":
        place = min(int(at * (len(past.rates) / rest)), len(past.rates) - 1)
        return past.rates[place] if place >= past.warm else peak
    if name == "clr":
        return past.least + (peak - past.least) * (1 + math.cos(math.pi * at / rest)) / 2
    return peak * (1 - at / rest)


def _start(name: str, rest: int, total: int, past: Past, cut: float | None) -> float:
    """The rate at which the warm-up ends."""
    if name == "ft":
        return past.least
    if name == "lrw":
        return past.rates[-rest]
    if name == ADAPTIVE:
        floor = min(total / len(past.rates), 1.0)
        return min(max(cut or 0.0, floor), 1.0)
    return 1.0


def relative_drop(before: float, after: float, removed: float) -> float:
    """Return what allr discounts the largest rate by: sqrt(|before - after| / before) / sqrt(removed).

    before, after: squared norm of all weights and biases around the pruning. removed: the share of the weights left until
    then that it took.
    """
    return math.sqrt(abs(before - after) / before / removed) if before and removed else 0.0


def issues(
    schedule: str,
    pretraining: Pretraining | None,
    least: float,
    length: int | None,
    total: int,
    masks: list[int] | None,
) -> list[Issue]:
    """Return what keeps a schedule of retraining from being followed.

    least: ``optim.min_factor``. length: updates of the training before; None where they are not known. total: of a cycle.
    masks: the updates at which masks are made; None where none are.
    """
    where = f"optim.schedule={schedule}"
    if schedule not in RETRAINING:
        if pretraining is None:
            return []
        return [
            Issue(
                "optim.pretraining", f"is nothing to {where}", f"leave it out, or write one of {', '.join(RETRAINING)}"
            )
        ]
    if least:
        return [Issue(f"optim.min_factor={least:g}", f"{where} has an end of its own", "write optim.min_factor=0.0")]
    if schedule in ALONE:
        return []
    if pretraining is None:
        return [Issue(where, "follows the rates of the training before, and nothing tells them", f"write {TOLD}")]
    if length is None:
        problem = "how long an epoch is is not known"
        return [Issue(f"optim.pretraining.length={pretraining.length}", problem, "write updates, such as 100")]
    if schedule == "lrw" and total > length:
        return [Issue(where, f"repeats the last {total:,} updates of a training that had {length:,}", "train for less")]
    if schedule == ADAPTIVE and masks != [0]:
        problem = "asks what pruning removes, which here is not before the first update alone"
        return [Issue(where, problem, "write method=magnitude schedule.at=0, or optim.schedule=llr")]
    return []
