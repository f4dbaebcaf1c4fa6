"""Scores of an auto-encoder whose tokens are coded one by one, by thresholds, whatever its rule does in a batch."""

from __future__ import annotations

from sparselab.core.data_types import Activations
from sparselab.training.metrics.metric import METRICS, Metric, Subject


@METRICS.register("alone")
class Alone(Metric):
    """``alone_fvu``, ``alone_l0`` and ``alone_dead``: as the task's, with thresholds in the place of the batch.

    Of a rule that looks at one token they are the task's own.
    """

    needs = (Activations, Activations)

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch
        from torchmetrics import MeanMetric
        from torchmetrics.regression import R2Score

        from sparselab.training.metrics.torch_side.never import NeverPositive

        network = subject.network
        device = next(network.parameters()).device
        explained = R2Score(multioutput="variance_weighted").set_dtype(torch.float64).to(device)
        active, dead = MeanMetric().to(device), NeverPositive().to(device)
        with network.select.alone(), torch.no_grad():  # type: ignore[union-attr, operator]
            for vectors, wanted in subject.batches():
                codes = network.codes(vectors)  # type: ignore[operator]
                explained.update(network.decoder(codes).double(), wanted.double())  # type: ignore[operator]
                active.update((codes > 0).sum(-1).float())
                dead.update(codes)
        return {
            "alone_fvu": 1 - float(explained.compute()),
            "alone_l0": float(active.compute()),
            "alone_dead": float(dead.compute()),
        }
