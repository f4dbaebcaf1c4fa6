"""An input from which tokens are deleted."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor

from sparselab.core.errors import RunFailed
from sparselab.inference.routing.rule import kept_count
from sparselab.inference.routing.tokens.decider import Choice, static_keep
from sparselab.inference.routing.tokens.frozen import Frozen, Routes
from sparselab.inference.routing.tokens.ledger import Ledger
from sparselab.inference.routing.tokens.trunk import Trunk


class Shorter:
    """The network on the first token and the latest ones, at their own positions; of deleted ones it says nothing."""

    def __init__(self, trunk: Trunk, share: float):
        self.trunk, self.share = trunk, share
        self.ledger = Ledger(trunk.depth)

    def __enter__(self) -> Shorter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def logits(self, tokens: Tensor) -> Tensor:
        """Read windows.

        Args:
            tokens: (n, t) int64

        Returns:
            (n, t, vocabulary) float; 0, the uniform distribution, where a token was deleted.
        """
        n, t = tokens.shape
        keep = static_keep(t, kept_count(t, self.share), tokens.device)
        places = keep.nonzero()[:, 0]
        for block in range(self.trunk.depth):
            self.ledger.count(block, n, Choice(keep[None]))
        short = tokens[:, places]
        # A mask of ones keeps the library from taking the gap between positions for the end of a packed text.
        given = {"attention_mask": torch.ones_like(short), "position_ids": places[None].expand(n, -1)}
        try:
            found = self.trunk.model(input_ids=short, use_cache=False, **given).logits
        except TypeError:
            problem = "routing=truncate: this network takes no positions, at which tokens could stay"
            raise RunFailed(f"{problem} — choose routing=static_tokens") from None
        out = found.new_zeros(n, t, found.shape[-1])
        out[:, places] = found
        return out


def prepare(frozen: Frozen) -> Routes:
    """Delete the share that was asked for."""
    return Routes(lambda: Shorter(frozen.trunk, frozen.target), [frozen.target] * frozen.trunk.depth)
