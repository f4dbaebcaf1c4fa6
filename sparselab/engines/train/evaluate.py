"""Scoring a split: sums over batches (and ranks), then metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from sparselab.spec.faults import RunFailed

if TYPE_CHECKING:
    from sparselab.tasks.task import Task


@torch.no_grad()
def evaluate(task: Task, feed: Any, split: str, precision: Any) -> dict[str, float]:
    """Metrics of the network as it is now, in evaluation mode and under the training precision.

    Raises RunFailed when a metric is not finite.
    """
    was_training = task.network.training
    task.network.eval()
    total = None
    device = next(task.network.parameters()).device
    with precision.forward_context():
        for batch in feed:
            sums = task.sums(tuple(part.to(device, non_blocking=True) for part in batch))
            total = sums if total is None else total + sums
    task.network.train(was_training)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    metrics = task.metrics(total.cpu(), split)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise RunFailed(f"{split}.{name} is {value} — lower optim.lr, or look at the log for where it began")
    return metrics
