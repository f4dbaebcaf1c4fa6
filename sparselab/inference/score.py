"""How well a network predicts the next token of given windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.core.errors import RunFailed


@dataclass(frozen=True)
class Score:
    """Sums over ``n`` predicted tokens: nats of cross-entropy, and hits of the likeliest token."""

    nats: float
    hits: float
    n: int

    @property
    def loss(self) -> float:
        return self.nats / self.n

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    @property
    def accuracy(self) -> float:
        return self.hits / self.n


@torch.no_grad()
def score(logits_of: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Score a language model on windows of text.

    Args:
        logits_of: (n, t) int64 tokens to (n, t, vocabulary) float
        batches: (inputs, targets), each (n, t) int64

    Returns:
        Sums over the predicted tokens.

    Raises:
        RunFailed: the loss is not finite.
    """
    nats, hits, n = 0.0, 0, 0
    for tokens, targets in batches:
        logits = logits_of(tokens).float().flatten(0, 1)
        flat = targets.flatten()
        nats += float(F.cross_entropy(logits, flat, reduction="sum").double())
        hits += int((logits.argmax(-1) == flat).sum())
        n += flat.numel()
    return checked(Score(nats, float(hits), n))


def checked(score: Score) -> Score:
    """The score; RunFailed if its loss is not finite."""
    if not math.isfinite(score.nats):
        raise RunFailed(f"test.loss is {score.nats} — the network's output is not finite under this rule")
    return score
