"""A frozen network that a rule of routing is prepared on, and what it is prepared to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.inference.routing.tokens.decider import Decider
from sparselab.inference.routing.tokens.ledger import Ledger
from sparselab.inference.routing.tokens.routed import Routed
from sparselab.inference.routing.tokens.trunk import Trunk

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Frozen:
    """A network, text, and what was asked for.

    windows: calibration windows as batches of inputs and targets, each (n, t) int64, by the purpose that they are drawn for.
    drawn:   (purpose, number) to one window at a random place of the train split, inputs and targets (1, t) int64.
    target:  the mean share of skipped tokens, 0 where the rule has its own.
    seed:    of the cell.
    check:   stops the run where somebody asked for it; takes where it is, in words.
    about:   network, text and seed, as text: two cells alike in it find the same allocation.
    """

    trunk: Trunk
    windows: Callable[[str], list[Batch]]
    drawn: Callable[[str, int], Batch]
    target: float
    seed: int
    check: Callable[[str], None]
    about: str


class Applied(Protocol):
    """A network under a choice of tokens."""

    ledger: Ledger

    def logits(self, tokens: Tensor) -> Tensor:
        """Read windows.

        Args:
            tokens: (n, t) int64

        Returns:
            (n, t, vocabulary) float.
        """


@dataclass
class Routes:
    """A network prepared for a rule.

    at_end:     the network for what follows a whole window; decisions may look at all of it.
    everywhere: for what follows every position, where decisions of ``at_end`` look at later tokens; None: ``at_end`` does not.
    shares:     s_i, asked of each block.
    measures:   what preparing found, by its name in records.
    """

    at_end: Callable[[], contextlib.AbstractContextManager[Applied]]
    shares: list[float]
    everywhere: Callable[[], contextlib.AbstractContextManager[Applied]] | None = None
    measures: dict[str, float] = field(default_factory=dict)


def routes(
    trunk: Trunk, decider: Decider, shares: list[float], everywhere: Decider | None = None,
    measures: dict[str, float] | None = None,
) -> Routes:  # fmt: skip
    """The network under a decider, and under another one for positions before the last."""
    return Routes(
        lambda: Routed(trunk, decider),
        shares,
        None if everywhere is None else lambda: Routed(trunk, everywhere),
        measures or {},
    )


@torch.no_grad()
def last_loss(frozen: Frozen, decider: Decider, windows: list[Batch]) -> float:
    """The mean cross-entropy of the token after each window, with tokens routed."""
    total, n = 0.0, 0
    with Routed(frozen.trunk, decider) as routed:
        for tokens, targets in windows:
            logits = routed.logits(tokens)[:, -1].float()
            total += float(F.cross_entropy(logits, targets[:, -1], reduction="sum").double())
            n += len(tokens)
    return total / n


@torch.no_grad()
def loss(frozen: Frozen, decider: Decider, windows: list[Batch]) -> float:
    """The mean cross-entropy of all tokens of windows, with tokens routed."""
    total, n = 0.0, 0
    with Routed(frozen.trunk, decider) as routed:
        for tokens, targets in windows:
            logits = routed.logits(tokens).float().flatten(0, 1)
            total += float(F.cross_entropy(logits, targets.flatten(), reduction="sum").double())
            n += targets.numel()
    return total / n
