"""Calibration: does a network's confidence equal its accuracy?"""

from __future__ import annotations

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.core.options import off
from sparselab.training.metrics.metric import METRICS, Metric, Subject


@METRICS.register("calibration")
class Calibration(Metric):
    """``ece``: expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3), and ``nll``, in nats.

    With ``worst`` also ``mce``, the largest gap of a bin, and ``worst_class``, the accuracy in the class with the least.
    The error is the mean over equally wide bins of the confidence, weighted by their size, of |accuracy - confidence|.
    torchmetrics computes it.
    """

    class Options(AnyOptions):
        bins: int = Field(15, ge=1, description="bins of the confidence, at least 1")
        worst: bool = off(False, description="true or false: the worst bin and the worst class, too")

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

        device = next(subject.network.parameters()).device
        error = MulticlassCalibrationError(subject.data.classes, self.options.bins, norm="l1").to(device)
        largest = MulticlassCalibrationError(subject.data.classes, self.options.bins, norm="max").to(device)
        by_class = MulticlassAccuracy(subject.data.classes, average=None).to(device)
        nats = MeanMetric().to(device)
        with torch.no_grad():
            for inputs, labels in subject.batches():
                log = subject.logits(inputs).log_softmax(-1)
                error.update(log.exp(), labels)
                if self.options.worst:
                    largest.update(log.exp(), labels)
                    by_class.update(log, labels)
                nats.update(-log.gather(1, labels[:, None]))
        found = {"ece": float(error.compute()), "nll": float(nats.compute())}
        if self.options.worst:
            found |= {"mce": float(largest.compute()), "worst_class": float(by_class.compute().min())}
        return found
