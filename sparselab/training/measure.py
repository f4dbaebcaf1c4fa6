"""The extra metrics that a cell asked for, beside its task's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import RunFailed
from sparselab.training.metrics.metric import Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.model_spec import Layer
    from sparselab.training.loop.module import TaskModule


def measure(
    metrics: list[Metric],
    task: TaskModule,
    loaders: Mapping[str, Iterable[Any]],
    splits: Any,
    precision: Any,
    weights: Mapping[Layer, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    parents: Callable[[], Iterator[nn.Module]] = lambda: iter(()),
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Numbers and pictures of all ``metrics`` on ``loaders["test"]``, in evaluation mode and under the training precision.

    weights, masks, parents: as :class:`Subject` has them.

    Raises RunFailed when a number is not finite.
    """
    if not metrics:
        return {}, {}
    device = next(task.network.parameters()).device

    def batches(loader: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in loader:
            if len(labels):  # of several ranks one may have nothing of the last batch
                yield inputs.to(device), labels.to(device)

    passes = {part: partial(batches, loader) for part, loader in loaders.items()}
    subject = Subject(
        task.network, lambda inputs: task.logits(inputs).float(), passes.pop("test"), task.data,
        getattr(splits, "mean", ()), getattr(splits, "std", ()), passes, splits, weights or {}, masks or {}, parents,
        lambda network, inputs: task.family.logits(network, inputs).float(),
    )  # fmt: skip
    was_training = task.network.training
    task.network.eval()
    found: dict[str, float] = {}
    pictures: dict[str, bytes] = {}
    with precision.forward_context():
        for metric in metrics:
            found |= metric.measure(subject)
            pictures |= metric.pictures(subject)
    task.network.train(was_training)
    for name, value in found.items():
        if not math.isfinite(value):
            raise RunFailed(f"test.{name} is {value} — leave the metric out, or look at the log for where it began")
    return found, pictures
