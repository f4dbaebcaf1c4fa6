"""Base of tasks that choose one class of each example. [no torch at import]"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparselab.training.tasks.task import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.training.losses.context import StepContext


class Classification(Task):
    """Cross-entropy with label smoothing; accuracy with its standard error.

    Targets: (n,) classes, or (n, c) mixtures.
    """

    headline = "accuracy"

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs.float(), batch[1], label_smoothing=context.optim.options.label_smoothing)

    def sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        import torch
        from torch.nn import functional as F

        logits, targets = outputs.float(), batch[1]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        hits = (logits.argmax(-1) == targets).sum()
        return torch.stack([hits.double(), loss.double(), torch.tensor(float(len(targets))).double().to(loss.device)])

    def numbers(self, total: Tensor, split: str, context: StepContext) -> dict[str, float]:
        hits, loss, n = total.tolist()
        accuracy = hits / n
        return {
            "accuracy": accuracy,
            "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / n),
            "loss": loss / n,
            "n": n,
        }

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        spread, n = 100 * metrics["test.accuracy_se"], metrics.get("test.n", 0)
        text = f"{100 * metrics['test.accuracy']:.2f} % (n = {n:,.0f}, standard error {spread:.2f})"
        return [("test accuracy", text)]
