"""Causal language modelling."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.training.tasks.task import Task

IGNORE = -100


class LanguageModel(Task):
    """Next-token cross-entropy. Batches: tokens (n, t) and targets (n, t), already shifted; -100 is not counted.

    A third part, where there is one, is bool (n, t): False where a token is padding.
    """

    headline = "perplexity"
    better = "lower"

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    def counted(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        return batch[1] != IGNORE

    def present(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        return batch[2] if len(batch) > 2 else None

    def sums(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, targets = batch
        logits = self.logits(tokens).float()
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
        return torch.stack([loss.double(), (targets != IGNORE).sum().double()])

    def metrics(self, total: Tensor, split: str) -> dict[str, float]:
        nats, tokens = total.tolist()
        mean = nats / tokens
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "bits_per_byte": nats / math.log(2) / (tokens * self.bytes_per_token[split]),
            "n": tokens,
        }

    bytes_per_token: dict[str, float]
    """Bytes of text that one predicted token stands for, per split; set when the data are loaded."""
