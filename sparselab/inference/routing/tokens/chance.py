"""Random tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselab.core.seeds import derive_seed
from sparselab.inference.routing.rule import kept_count
from sparselab.inference.routing.tokens.decider import Choice, Decider, Part, largest
from sparselab.inference.routing.tokens.frozen import Frozen, Routes, routes
from sparselab.inference.routing.tokens.shares import allocated, parts_of

if TYPE_CHECKING:
    from sparselab.inference.routing.fixed import RandomTokens


class ByChance(Decider):
    """Other tokens at every call. shares: s_i of each block. seed: what is drawn. keep_last: the last token is one of them."""

    def __init__(self, shares: list[float], parts: tuple[Part, ...], seed: int, keep_last: bool):
        self.shares, self.parts, self.keep_last = shares, parts, keep_last
        self._generator = torch.Generator().manual_seed(seed)

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        n, t = hidden.shape[:2]
        kept = kept_count(t, self.shares[block])
        if kept == t:
            return None
        wish = torch.rand(n, t, generator=self._generator)
        return Choice(largest(wish, kept, self.keep_last and kept > 0).to(hidden.device), self.parts)


def prepare(rule: RandomTokens, frozen: Frozen) -> Routes:
    """Divide the skipped share among blocks; which tokens go is drawn as they come."""
    shares = allocated(rule, frozen)
    seed = derive_seed("tokens", rule.options.draw, frozen.seed)
    decider = ByChance(shares, parts_of(rule.options), seed, rule.options.keep_last)
    return routes(frozen.trunk, decider, shares)
