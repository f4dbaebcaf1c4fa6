"""Loss of a language model where an auto-encoder's output takes the place of what its block puts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_types import Activations
from sparselab.core.options import Options as AnyOptions
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor


@METRICS.register("spliced")
class Spliced(Metric):
    """Cross-entropy in nats a token with an auto-encoder in the place of what it encodes.

    ``ce_clean`` is that of the model as it is, ``ce`` with the auto-encoder's output in the place of its block's, ``ce_zero``
    with zeros there. ``recovered`` = (ce_zero - ce) / (ce_zero - ce_clean), as papers on sparse auto-encoders report it.
    """

    needs = (Activations, Activations)

    class Options(AnyOptions):
        tokens: int = Field(ge=1, description="tokens of the text's test split, at least 1")

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch

        loaded, count = subject.loaded, min(self.options.tokens, subject.data.test)

        def restored(vectors: Tensor) -> Tensor:
            device = next(subject.network.parameters()).device
            return subject.logits(vectors.to(device)).to(vectors.device)

        clean = loaded.nats("test", count)
        zero = loaded.recorder.nats("test", count, torch.zeros_like)
        found = loaded.nats("test", count, restored)
        return {"ce": found, "ce_clean": clean, "ce_zero": zero, "recovered": (zero - found) / (zero - clean)}
