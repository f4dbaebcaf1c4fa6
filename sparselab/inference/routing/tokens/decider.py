"""The choice of the tokens that go through a block, and what chooses them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparselab.inference.routing.rule import kept_count, static_order

Part = Literal["block", "attention", "mlp"]
From = Literal["last", "mean", "causal"]
SECOND: Part = "mlp"
"""The half of a block that comes after attention."""


@dataclass(frozen=True)
class Choice:
    """The tokens that go through parts of a block, or past them.

    keep:  (n or 1, t) bool, True where a token goes through.
    parts: what a token skips: the block, or its halves.
    gate:  (n, t) float, the factor of what the block adds, for a gradient; its values are those of ``keep``.
    """

    keep: Tensor
    parts: tuple[Part, ...] = ("block",)
    gate: Tensor | None = None


class Decider(ABC):
    """Chooses tokens, block by block. ``reads``: whose attention gives the scores that it wants, None for none."""

    reads: From | None = None

    @abstractmethod
    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        """Choose the tokens that go through a block.

        Args:
            block: its number, from 0
            hidden: (n, t, width) what the block reads
            scores: (n, t) attention that each token got in the block that last computed it, where ``reads`` says whose

        Returns:
            The choice; None: the block stays as it is.
        """


def static_keep(tokens: int, kept: int, device: torch.device | None = None) -> Tensor:
    """Mark the first ``kept`` tokens in the order 0, t-1, t-2, …, 1.

    Args:
        tokens: t
        kept: how many stay
        device: of what is returned

    Returns:
        (t,) bool.
    """
    keep = torch.zeros(tokens, dtype=torch.bool, device=device)
    keep[static_order(tokens)[:kept]] = True
    return keep


def largest(wish: Tensor, kept: int, keep_last: bool) -> Tensor:
    """Mark the tokens with the largest values.

    Args:
        wish: (n, t), below 2
        kept: how many
        keep_last: True: the last token is one of them

    Returns:
        (n, t) bool.
    """
    wish = wish.detach().clone()
    if keep_last:
        wish[:, -1] = 2.0
    place = wish.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return place < kept


class ByPosition(Decider):
    """The static router. shares: s_i of each block. parts: what a token skips."""

    def __init__(self, shares: Sequence[float], parts: tuple[Part, ...] = ("block",)):
        self.shares, self.parts = list(shares), parts

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        t = hidden.shape[1]
        kept = kept_count(t, self.shares[block])
        return None if kept == t else Choice(static_keep(t, kept, hidden.device)[None], self.parts)


class Removing(Decider):
    """Parts that no token goes through. removed: by block."""

    def __init__(self, removed: Mapping[int, tuple[Part, ...]]):
        self.removed = dict(removed)

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        parts = self.removed.get(block)
        if not parts:
            return None
        return Choice(torch.zeros(1, hidden.shape[1], dtype=torch.bool, device=hidden.device), parts)
