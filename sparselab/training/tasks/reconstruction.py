"""Reconstruction of vectors by a sparse code: auto-encoders of activations [no torch at import]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparselab.core.data_types import Activations
from sparselab.training.tasks.task import TASKS, Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext


@TASKS.register("reconstruction")
class Reconstruction(Task):
    """Squared error over that of the batch's mean (openai/sparse_autoencoder, train.py). Batches: two tensors (n, width).

    fvu: squared error over the squared distance from the mean of the split, 1 - R². nmse: squared error of a vector over its
    squared length, the mean over vectors (loss.py of the same). l0, l0_sd: mean and standard deviation over vectors of how
    many features fire. dead: share of features that fire for no vector. ``loss`` is fvu.
    """

    needs = (Activations, Activations)
    headline = "fvu"
    better = "lower"
    least_batch = 2  # one vector is its batch's mean

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        return normalised_error(outputs.float(), batch[1])

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        import torch
        from torchmetrics.regression import R2Score

        from sparselab.training.metrics.torch_side.never import NeverPositive

        explained = R2Score(multioutput="variance_weighted").set_dtype(torch.float64)
        return {**totals("relative", "active", "active_squared", "n"), "explained": explained, "dead": NeverPositive()}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        restored, wanted = outputs.double(), batch[1].double()
        codes = context.network.codes(batch[0])  # type: ignore[operator]
        active = (codes > 0).sum(-1)
        metrics["explained"].update(restored, wanted)
        metrics["relative"].update(((restored - wanted).square().sum(-1) / wanted.square().sum(-1)).sum())
        metrics["active"].update(active.sum())
        metrics["active_squared"].update(active.square().sum())
        metrics["dead"].update(codes)
        metrics["n"].update(len(wanted))

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        n, fvu = values["n"], 1 - values["explained"]
        mean = values["active"] / n
        return {
            "fvu": fvu,
            "nmse": values["relative"] / n,
            "l0": mean,
            "l0_sd": math.sqrt(max(values["active_squared"] / n - mean**2, 0.0)),
            "dead": values["dead"],
            "loss": fvu,
            "n": n,
        }

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        n, dead = metrics["test.n"], 100 * metrics["test.dead"]
        active = f"{metrics['test.l0']:.2f} ± {metrics['test.l0_sd']:.2f} features a vector, {dead:.1f} % dead"
        return [("test unexplained", f"{metrics['test.fvu']:.4f} of the variance ({active}, n = {n:,.0f})")]


def normalised_error(restored: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error over :func:`scatter` of ``wanted``.

    Args:
        restored: (n, width)
        wanted: (n, width)

    Returns:
        () float.
    """
    return (restored - wanted).square().mean() / scatter(wanted)


def scatter(vectors: Tensor) -> Tensor:
    """Mean squared distance of vectors (n, width) from their mean: a scalar. In training of a batch's on all processes."""
    from sparselab.inputs.models.shared import of_run

    shared = of_run()
    mean = shared.total(vectors.mean(0)) / shared.world
    return shared.total((vectors - mean).square().mean()) / shared.world
