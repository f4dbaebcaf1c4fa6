"""Calibration: does a network's confidence equal its accuracy?"""

from __future__ import annotations

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.training.metrics.metric import METRICS, Metric, Subject


@METRICS.register("calibration")
class Calibration(Metric):
    """``ece``: expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3), and ``nll``, in nats.

    The error is the mean over equally wide bins of the confidence, weighted by their size, of |accuracy - confidence|.
    torchmetrics computes it.
    """

    class Options(AnyOptions):
        bins: int = Field(ge=1, description="bins of the confidence, at least 1")

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassCalibrationError

        device = next(subject.network.parameters()).device
        error = MulticlassCalibrationError(subject.data.classes, self.options.bins, norm="l1").to(device)
        nats = MeanMetric().to(device)
        with torch.no_grad():
            for inputs, labels in subject.batches():
                log = subject.logits(inputs).log_softmax(-1)
                error.update(log.exp(), labels)
                nats.update(-log.gather(1, labels[:, None]))
        return {"ece": float(error.compute()), "nll": float(nats.compute())}
