"""Scoring a split: metrics of torchmetrics over batches (and ranks), then the task's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from sparselab.core.errors import RunFailed

if TYPE_CHECKING:
    from sparselab.training.loop.module import TaskModule
    from sparselab.training.scenarios.torch_side.course import Scored


@torch.no_grad()
def evaluate(task: TaskModule | Scored, loader: Iterable[Any], split: str, precision: Any) -> dict[str, float]:
    """Metrics of the network as it is now, in evaluation mode and under the training precision.

    Several processes score a share of each batch and get the same metrics. Raises RunFailed when one is not finite, or
    there is nothing to score.
    """
    many = dist.is_available() and dist.is_initialized()
    if many:  # each rank has gathered its own running statistics; rank 0's are the ones that are exported
        for buffer in task.network.buffers():
            dist.broadcast(buffer, 0)
    was_training = task.network.training
    task.network.eval()
    device = next(task.network.parameters()).device
    metrics, scored = task.metrics().to(device), 0
    with task.scoring(), precision.forward_context():
        for batch in loader:
            scored += 1
            task.score(metrics, tuple(part.to(device, non_blocking=True) for part in batch))
    task.network.train(was_training)
    if not scored:
        raise RunFailed(f"{split}: there is not one example to score — see the options of dataset")
    values = {name: float(value) for name, value in metrics.compute().items()}  # collective
    numbers = task.numbers(values, split)
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise RunFailed(f"{split}.{name} is {value} — lower optim.lr, or look at the log for where it began")
    return numbers
