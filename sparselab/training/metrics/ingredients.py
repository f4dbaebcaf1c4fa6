"""A merged network beside the networks that it was merged of: is the soup better than its ingredients?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.training.metrics.corrupted import CorruptionOptions, accuracies
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


@METRICS.register("ingredients")
class Ingredients(Metric):
    """Accuracies of a soup's ingredients, of their prediction ensemble, and how far apart they lie (arXiv 2306.16788).

    ``ingredients_mean``, ``_best``, ``_worst``: test accuracies, batch normalisation measured again as the soup's was. The best
    one is chosen by the test split: an oracle. ``over_mean``, ``over_best``: the soup's accuracy less theirs.
    ``ensemble``: accuracy of the mean of their probabilities; ``ensemble_agreement``: the share of test images of which the
    soup says what it says. ``distance`` (and ``distance_max``): mean (largest) Euclidean distance of two ingredients, over
    weights and biases; ``angle`` (``angle_max``): their angle in degrees; ``to_mean_max``: the largest distance to the mean
    of all. The released code of that paper counts what batch normalisation gathered among the weights, too.

    corrupted: also on these sets (see ``corrupted``), as ``ingredients_corrupted_mean``, ``over_mean_corrupted`` and so on, of
    the mean accuracy over all sets.
    """

    needs_parents = True

    class Options(AnyOptions):
        corrupted: list[Literal["gaussian_noise", "gaussian_blur", "contrast"]] = Field(
            description="any of gaussian_noise, gaussian_blur, contrast; or []"
        )
        severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
            min_length=1, description="from 1 (slight) to 5, such as [3]"
        )

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch

        o = self.options
        sets = CorruptionOptions(kinds=o.corrupted, severities=o.severities) if o.corrupted else None
        labels = [batch for _, batch in subject.batches()]
        clean: list[float] = []
        hard: list[float] = []
        vectors: list[Tensor] = []
        total: list[Tensor] = []
        with torch.no_grad():
            for network in subject.parents():
                vectors.append(torch.cat([p.detach().float().cpu().flatten() for p in network.parameters()]))
                found = [subject.forward(network, inputs).softmax(-1) for inputs, _ in subject.batches()]
                clean.append(share(right(found, labels)))
                total = found if not total else [a + b for a, b in zip(total, found, strict=True)]
                if sets:
                    hard.append(accuracies(subject, partial(subject.forward, network), sets)["corrupted"])
            soup = [subject.logits(inputs).argmax(-1) for inputs, _ in subject.batches()]
        accuracy = share(a == b for a, b in zip(soup, labels, strict=True))
        numbers = {
            **beside(accuracy, clean, ""),
            "ensemble": share(right(total, labels)),
            "ensemble_agreement": share(a == b.argmax(-1) for a, b in zip(soup, total, strict=True)),
            **apart(vectors),
        }
        if sets:
            numbers |= beside(accuracies(subject, subject.logits, sets)["corrupted"], hard, "_corrupted")
        return numbers


def right(found: Sequence[Tensor], labels: Sequence[Tensor]) -> Iterable[Tensor]:
    """Tell whether each prediction is right, batch by batch. found: (n, classes) each; labels: (n,) each."""
    return (scores.argmax(-1) == truth for scores, truth in zip(found, labels, strict=True))


def share(truths: Iterable[Tensor]) -> float:
    """Return the share of ``truths`` (bool, (n,) each) that is true, over all batches and ranks."""
    import torch
    from torchmetrics import MeanMetric

    every = torch.cat(list(truths)).float()
    mean = MeanMetric().to(every.device)
    mean.update(every)
    return float(mean.compute())


def beside(soup: float, candidates: Sequence[float], name: str) -> dict[str, float]:
    """The accuracies of the ingredients, and the soup's less theirs."""
    mean, best = sum(candidates) / len(candidates), max(candidates)
    return {
        f"ingredients{name}_mean": mean,
        f"ingredients{name}_best": best,
        f"ingredients{name}_worst": min(candidates),
        f"over_mean{name}": soup - mean,
        f"over_best{name}": soup - best,
    }


def apart(vectors: Sequence[Tensor]) -> dict[str, float]:
    """How far networks lie apart, as vectors of all their weights: Euclidean distances and angles in degrees."""
    import torch

    distances, angles = [], []
    for a, b in itertools.combinations(vectors, 2):
        distances.append(float((a - b).norm()))
        cosine = float(torch.dot(a.double(), b.double()) / (a.double().norm() * b.double().norm()).clamp_min(1e-300))
        angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    mean = sum(vectors[1:], vectors[0]) / len(vectors)
    return {
        "distance": sum(distances) / len(distances),
        "distance_max": max(distances),
        "angle": sum(angles) / len(angles),
        "angle_max": max(angles),
        "to_mean_max": max(float((vector - mean).norm()) for vector in vectors),
    }
