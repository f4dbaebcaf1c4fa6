"""Ratios of things that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One figure: ``ratio`` (quartiles and median) of a thing to its baseline, ``seconds`` of the baseline (median).

    goal: the largest ratio that is asked for, where one is. extra: what else was counted (bytes, calls), as text.
    """

    section: str
    name: str
    baseline: str
    ratio: tuple[float, float, float]
    seconds: float
    rounds: int
    goal: float | None = None
    extra: str = ""


def clock(device: str) -> Callable[[], float]:
    """Seconds: of the processor on a CPU (what others do on the machine hardly counts), of the wall on a GPU."""
    return time.process_time if device == "cpu" else wall(device)


def wall(device: str) -> Callable[[], float]:
    """Seconds of the wall, once the device has done what it was given."""
    if device == "cpu":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


def turns(
    things: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str,
    warm_up: int = 2,
    now: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of each thing in each round, after ``warm_up`` rounds that do not count.

    They are told by :func:`clock` unless ``now`` is another.
    """
    now = now or clock(device)
    times: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + warm_up):
        for name, thing in things.items():
            began = now()
            thing()
            if turn >= warm_up:
                times[name].append(now() - began)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def row(
    section: str, name: str, baseline: str, times: Mapping[str, list[float]], goal: float | None = None, extra: str = ""
) -> Row:
    """The ratio of ``name`` to ``baseline``, round by round."""
    ratios = [a / b for a, b in zip(times[name], times[baseline], strict=True)]
    return Row(section, name, baseline, quartiles(ratios), statistics.median(times[baseline]), len(ratios), goal, extra)
