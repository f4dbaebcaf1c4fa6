"""Classification of sentences and of pairs of them [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.data_types import Classes, Sentences
from sparselab.training.tasks.classification import Classification
from sparselab.training.tasks.task import TASKS, Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext


@TASKS.register("text_classification")
class TextClassification(Classification):
    """One class of each sentence or pair. Beside accuracy GLUE's other scores: ``f1`` and ``matthews``.

    f1: of class 1 where there are two classes, else the mean of the classes' own. matthews: the correlation of Matthews (1975).
    Both are 0 where a network says the same of all.
    """

    needs = (Sentences, Classes)

    def present(self, batch: Batch) -> Tensor | None:
        return batch[0][:, 1].bool()

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        from torchmetrics.classification import BinaryF1Score, MulticlassF1Score, MulticlassMatthewsCorrCoef

        count = data.classes
        f1 = BinaryF1Score() if count == 2 else MulticlassF1Score(count, average="macro")
        return {**super().metrics(data), "f1": f1, "matthews": MulticlassMatthewsCorrCoef(count)}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        super().score(metrics, outputs, batch, context)
        for name in ("f1", "matthews"):
            metrics[name].update(outputs.argmax(-1), batch[1])

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        return {**super().numbers(values, split, context), "f1": values["f1"], "matthews": values["matthews"]}
