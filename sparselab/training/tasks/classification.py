"""Base of tasks that choose one class of each example [no torch at import]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparselab.training.tasks.task import Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext


class Classification(Task):
    """Cross-entropy with label smoothing; accuracy with its standard error.

    Targets: (n,) classes, or (n, c) mixtures.
    """

    headline = "accuracy"

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs.float(), batch[1], label_smoothing=context.optim.options.label_smoothing)

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        return {**totals("hits", "loss", "n")}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        from torch.nn import functional as F

        logits, targets = outputs.float(), batch[1]
        metrics["hits"].update((logits.argmax(-1) == targets).sum())
        metrics["loss"].update(F.cross_entropy(logits, targets, reduction="sum"))
        metrics["n"].update(len(targets))

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        n, accuracy = values["n"], values["hits"] / values["n"]
        return {
            "accuracy": accuracy,
            "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / n),
            "loss": values["loss"] / n,
            "n": n,
        }

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        spread, n = 100 * metrics["test.accuracy_se"], metrics.get("test.n", 0)
        text = f"{100 * metrics['test.accuracy']:.2f} % (n = {n:,.0f}, standard error {spread:.2f})"
        return [("test accuracy", text)]
