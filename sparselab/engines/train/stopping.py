"""Signals and checkpoints: a signal sets a flag, and only the end of an optimiser update honours it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from sparselab.spec.faults import Stopped

if TYPE_CHECKING:
    from sparselab.engines.train.loop import Loop

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_STOPPED = 75


class StopFlag:
    """Set by the first signal. A second one leaves at once, without saving: the last checkpoint stands."""

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def _handle(self, number: int, frame: Any) -> None:
        if self.name:
            os._exit(EXIT_STOPPED)
        self.name = signal.Signals(number).name
        os.write(2, f"\n{self.name}: stopping after this update; a second signal leaves at once\n".encode())

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Own the signals while inside (nothing else may: Lightning's handlers are kept out)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Saver:
    """Observer: checkpoints by time, by count and on request. The last observer, so that it saves what the others did."""

    def __init__(self, flag: StopFlag, minutes: float | None, every: int | None, clock: Any = time.monotonic):
        self.flag = flag
        self.seconds = minutes * 60 if minutes else None
        self.every = every
        self.clock = clock
        self.last = clock()

    def after_update(self, loop: Loop, step: int) -> None:
        stop = self._any_rank(bool(self.flag), loop)
        timed = self.seconds is not None and self._any_rank(self.clock() - self.last >= self.seconds, loop)
        if stop or timed or (self.every and step % self.every == 0):
            loop.trainer.save_checkpoint(f"step-{step}")
            self.last = self.clock()
        if stop:
            raise Stopped(f"stopped on request after update {step:,} — the same command goes on from there")

    @staticmethod
    def _any_rank(value: bool, loop: Loop) -> bool:
        """Ranks must save together; clocks and signals are per process."""
        if loop.trainer.world_size == 1:
            return value
        answer = torch.tensor(int(value), device=loop.task.device)
        torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
        return bool(answer)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass
