"""Calibration: does a network's confidence equal its accuracy?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.core.options import off
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor


@METRICS.register("calibration")
class Calibration(Metric):
    """``ece``: expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3), and ``nll``, in nats.

    With ``worst`` also ``mce``, the largest gap of a bin, and ``worst_class``, the accuracy in the class with the least.
    The error is the mean over equally wide bins of the confidence, weighted by their size, of |accuracy - confidence|.
    torchmetrics computes it.
    """

    class Options(AnyOptions):
        bins: int = Field(ge=1, description="bins of the confidence, at least 1")
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
                error.update(probabilities(log.exp()), labels)
                if self.options.worst:
                    largest.update(log.exp(), labels)
                    by_class.update(log, labels)
                nats.update(-log.gather(1, labels[:, None]))
        found = {"ece": float(error.compute()), "nll": float(nats.compute())}
        if self.options.worst:
            found |= {"mce": float(largest.compute()), "worst_class": float(by_class.compute().min())}
        return found


def probabilities(values: Tensor) -> Tensor:
    """``values`` (n, classes) where each row is a distribution; ValueError for anything else, such as logits.

    torchmetrics would take a softmax of logits without a word, and a mixture of both kinds of batches would be neither.
    """
    if bool((values < 0).any()) or bool(((values.sum(-1) - 1).abs() > 1e-3).any()):
        raise ValueError("a calibration error is of probabilities, and these are none: take a softmax of logits first")
    return values


def expected_error(values: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the ECE of probabilities ``values`` (n, classes) with ``labels`` (n,); ValueError for logits."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = multiclass_calibration_error(probabilities(values), labels, values.shape[1], n_bins=bins, norm="l1")
    return float(found)


@METRICS.register("brier")
class Brier(Metric):
    """``brier``: mean squared distance of the probabilities from the truth, summed over classes (Brier 1950); 0 is perfect."""

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch
        from torch.nn.functional import one_hot
        from torchmetrics import MeanMetric

        score = MeanMetric().to(next(subject.network.parameters()).device)
        with torch.no_grad():
            for inputs, labels in subject.batches():
                found = subject.logits(inputs).softmax(-1)
                score.update((found - one_hot(labels, found.shape[1])).square().sum(-1))
        return {"brier": float(score.compute())}


@METRICS.register("ece_released_code")
class ReleasedCodeECE(Metric):
    """``ece_released_code``: what the released code of arXiv 2308.14969 prints as ECE, which is another number.

    It bins the largest LOGIT of an example as if it were a probability (all above 1 share a bin), for each batch of ``batch``
    test examples by itself, adds the batches up and divides by the number of examples.
    """

    class Options(AnyOptions):
        batch: int = Field(ge=1, description="test examples of a batch, at least 1; the released code has 128")
        bins: int = Field(ge=1, description="bins from 0 to 1, at least 1")

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch

        from sparselab.training.metrics.unlearning import everyone

        largest, right = [], []
        with torch.no_grad():
            for inputs, labels in subject.batches():
                top, taken = subject.logits(inputs).max(-1)
                largest.append(top)
                right.append((taken == labels).float())
        values, hits = torch.from_numpy(everyone(torch.cat(largest))), torch.from_numpy(everyone(torch.cat(right)))
        size = self.options.batch
        total = sum(map(lambda v, h: binned(v, h, self.options.bins), values.split(size), hits.split(size)))
        return {"ece_released_code": float(total) / len(values)}


def binned(values: Tensor, hits: Tensor, bins: int) -> float:
    """Return the weighted mean over bins of |mean of ``values`` - share of ``hits``|; both (n,).

    Bins are (i / bins, (i + 1) / bins]. Values below 0 are in the first bin. Those above 1 are in the last: the released code's
    own bins end so, too.
    """
    import torch

    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    place = torch.searchsorted(edges, values.double())
    gap = (values - hits).double()
    sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, gap)
    return float(sums.abs().sum()) / len(values)
