"""Counters of each training example since examples were last removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

UNSEEN = -1


class Tally:
    """Counters of ``examples`` training examples, by number, on the network's device.

    last: (n,) int8, 1 right, 0 wrong, -1 not seen yet. ever: (n,) bool, right at least once. events: (n,) int32, how often it
    was right and, when it was seen next, wrong. wrong: (n,) int32, how often it was wrong.
    never: what counts for one that never was right.
    """

    def __init__(self, examples: int, never: int, device: torch.device | str = "cpu"):
        self.never = never
        self.last = torch.full((examples,), UNSEEN, dtype=torch.int8, device=device)
        self.ever = torch.zeros(examples, dtype=torch.bool, device=device)
        self.events = torch.zeros(examples, dtype=torch.int32, device=device)
        self.wrong = torch.zeros(examples, dtype=torch.int32, device=device)

    def look(self, numbers: Tensor, right: Tensor) -> None:
        """Look at a batch.

        Args:
            numbers: (b,) int64, no example twice
            right: (b,) bool, examples that the network got right
        """
        before = self.last[numbers]
        self.events[numbers] += ((before == 1) & ~right).int()
        self.wrong[numbers] += (~right).int()
        self.ever[numbers] |= right
        self.last[numbers] = right.to(torch.int8)

    def forgotten(self) -> Tensor:
        """Forgetting events, (n,) int64; ``never`` of an example that was seen and never was right."""
        return torch.where(self.ever | (self.last == UNSEEN), self.events.long(), self.never)

    def restart(self) -> None:
        """Forget everything."""
        self.last.fill_(UNSEEN)
        for counter in (self.ever, self.events, self.wrong):
            counter.zero_()

    def state(self) -> dict[str, Tensor]:
        """Return the counters for a checkpoint."""
        return {"last": self.last, "ever": self.ever, "events": self.events, "wrong": self.wrong}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, counter in self.state().items():
            counter.copy_(state[name])
