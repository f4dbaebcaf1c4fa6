"""Causal language modelling [no torch at import]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparselab.core.data_types import NextTokens, Tokens
from sparselab.training.tasks.task import TASKS, Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext

IGNORE = -100


@TASKS.register("language_modeling")
class LanguageModeling(Task):
    """Next-token cross-entropy. Batches: tokens (n, t) and targets (n, t), already shifted; -100 is not counted.

    A third part, where there is one, is bool (n, t): False where a token is padding.
    """

    needs = (Tokens, NextTokens)
    headline = "perplexity"
    better = "lower"

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs.float().flatten(0, 1), batch[1].flatten(), ignore_index=IGNORE)

    def counted(self, batch: Batch) -> Tensor | None:
        return batch[1] != IGNORE

    def present(self, batch: Batch) -> Tensor | None:
        return batch[2] if len(batch) > 2 else None

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        return {**totals("nats", "tokens")}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        from torch.nn import functional as F

        logits, targets = outputs.float(), batch[1]
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
        metrics["nats"].update(nats)
        metrics["tokens"].update((targets != IGNORE).sum())

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        nats, tokens = values["nats"], values["tokens"]
        mean = nats / tokens
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "bits_per_byte": nats / math.log(2) / (tokens * context.bytes_per_token[split]),
            "n": tokens,
        }

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        n = metrics.get("test.n", 0)
        bits = f"{metrics['test.bits_per_byte']:.4f} bits per byte, n = {n:,.0f} tokens"
        return [("test perplexity", f"{metrics['test.perplexity']:.4g} ({bits})")]
