"""Signals and checkpoints: only the end of an optimiser update honours a request to stop [no torch]."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sparselab.running.signals import StopFlag, stopped

if TYPE_CHECKING:
    from sparselab.training.loop.loop import Loop


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
