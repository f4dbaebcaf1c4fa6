"""Decoders in turns, token by token, and what reading memory costs meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparselab.core.native_build import Unavailable
from sparselab.running.signals import StopFlag

FLOATS = 1 << 24  # 64 MB, read from end to end: more than the last cache keeps
TRIES = 3


class Bandwidth:
    """Gigabytes a second of reading memory and adding it up; the best of all tries counts."""

    def __init__(self, threads: int):
        from sparselab.latency.kernels.decoding.packing import in_large_pages

        self.threads, self.best = threads, 0.0
        self.floats = in_large_pages(np.ones(FLOATS, np.float32))
        self.sum: Callable[[], Any] = self.floats.sum
        try:
            from sparselab.latency.kernels.decoding.native import library

            self.sum = lambda: library().sum_of(self.floats.ctypes.data, FLOATS, threads)
        except Unavailable:
            pass

    def measure(self) -> None:
        """Try a few times."""
        for _ in range(TRIES):
            began = time.perf_counter()
            self.sum()
            self.best = max(self.best, self.floats.nbytes / (time.perf_counter() - began) / 1e9)


def turns(
    calls: Mapping[str, Callable[[int, int], Any]], tokens: Sequence[int], first: int, rounds: int, stop: StopFlag,
    bandwidth: Bandwidth,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Milliseconds (rounds, tokens from place ``first`` on) of each; at every token all of them take their turn.

    What comes before ``first`` is read once, without being timed.
    """
    times = {name: np.zeros((rounds, len(tokens) - first)) for name in calls}
    for place in range(first):
        for call in calls.values():
            call(tokens[place], place)
    for number in range(rounds):
        bandwidth.measure()
        for place in range(first, len(tokens)):
            stop.check("between two tokens")
            for name, call in calls.items():
                began = time.perf_counter()
                call(tokens[place], place)
                times[name][number, place - first] = 1e3 * (time.perf_counter() - began)
    return times


def mean_of_best(times: np.ndarray) -> float:
    """The mean over tokens of the fastest of the rounds; times: (rounds, tokens)."""
    return float(times.min(0).mean())
