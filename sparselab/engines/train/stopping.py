"""Signals and checkpoints: a signal sets a flag, and only the end of an optimiser update honours it. [no torch]"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparselab.spec.faults import Stopped

if TYPE_CHECKING:
    from sparselab.engines.train.loop import Loop

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_STOPPED = 75


class StopFlag:
    """Set by the first request to stop. A second one leaves at once, without saving: the last checkpoint stands."""

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def request(self, name: str) -> None:
        """Ask to stop; ``name`` says who does. Safe in a signal handler and from another thread."""
        if self.name:
            os._exit(EXIT_STOPPED)
        self.name = name

    def check(self, when: str) -> None:
        """Stop here, where nothing has to be saved, if that was asked for. Raises Stopped."""
        if self:
            raise stopped(self, when)

    def _handle(self, number: int, frame: Any) -> None:
        self.request(signal.Signals(number).name)
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


def stopped(flag: StopFlag, when: str) -> Stopped:
    """What to raise when a run stops on request; ``when`` completes "stopped"."""
    return Stopped(f"{flag.name or 'another rank'}: stopped {when} — the same command goes on from there")


class Agreement:
    """Answers of one process that hold for all: yes where any rank says yes.

    Clocks and signals are per process, and ranks must act together. They talk through the CPU, so that no update on a
    GPU is waited for.
    """

    def __init__(self) -> None:
        self.group: Any = None

    def any(self, *answers: bool) -> list[bool]:
        """Collective: every rank calls it at the same place with as many answers."""
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return list(answers)
        import torch

        if self.group is None:
            self.group = dist.new_group(backend="gloo")
        numbers = torch.tensor(answers, dtype=torch.uint8)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group)
        return [bool(number) for number in numbers]


class Saver:
    """Observer: checkpoints by time, by count and on request. The last observer: it saves what the others did."""

    def __init__(
        self,
        flag: StopFlag,
        minutes: float | None,
        every: int | None,
        agreement: Agreement,
        clock: Any = time.monotonic,
    ):
        self.flag = flag
        self.seconds = minutes * 60 if minutes else None
        self.every = every
        self.agreement = agreement
        self.clock = clock
        self.last = clock()

    def after_update(self, loop: Loop, step: int) -> None:
        late = self.seconds is not None and self.clock() - self.last >= self.seconds
        stop, late = self.agreement.any(bool(self.flag), late)
        if stop or late or (self.every and step % self.every == 0):
            loop.trainer.save_checkpoint(f"step-{step}")
            self.last = self.clock()
        if stop:
            raise stopped(self.flag, f"after update {step:,}")

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass
