"""The loss of training batches, for methods that measure it before the first mask."""

from __future__ import annotations

from typing import Any

import torch

from sparselab.training.loop.module import TaskModule
from sparselab.training.parts import Parts
from sparselab.weights.probe import Probe


def make_probe(parts: Parts, task: TaskModule, splits: Any, device: torch.device) -> Probe:
    """Whole batches on every rank, whatever their number: each measures all, and all measure the same."""

    def seen(batch: Any) -> Any:
        return parts.task.batch(tuple(part.to(device) for part in batch))

    def outputs(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return parts.family.logits(network, inputs.to(device))

    def loss(network: torch.nn.Module, batch: Any, temperature: float) -> torch.Tensor:
        batch = seen(batch)
        return task.criterion(parts.family.logits(network, batch[0]) / temperature, batch)

    def loader() -> Any:
        return iter(splits.loader("train", parts.cell.trainer.batch_size, parts.cell.seed, device=str(device)))

    return Probe(task.network, loss, loader, parts.data.classes, parts.cell.seed, outputs, seen)
