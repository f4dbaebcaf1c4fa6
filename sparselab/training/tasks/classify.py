"""Image classification."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.training.tasks.task import Task


class Classify(Task):
    """Cross-entropy with label smoothing; accuracy with its standard error.

    Targets: (n,) classes, or (n, c) mixtures.
    """

    headline = "accuracy"

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.optim.options.label_smoothing)

    def sums(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        logits = self.logits(inputs).float()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        hits = (logits.argmax(-1) == targets).sum()
        return torch.stack([hits.double(), loss.double(), torch.tensor(float(len(targets))).double().to(loss.device)])

    def metrics(self, total: Tensor, split: str) -> dict[str, float]:
        hits, loss, n = total.tolist()
        accuracy = hits / n
        return {
            "accuracy": accuracy,
            "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / n),
            "loss": loss / n,
            "n": n,
        }
