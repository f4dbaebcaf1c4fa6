"""Training examples through a network, for methods that ask what layers read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from sparselab.core.seeds import derive_seed
from sparselab.weights.calibration import Calibration

if TYPE_CHECKING:
    import torch

    from sparselab.training.parts import Parts
    from sparselab.weights.capabilities import ReadsInputs
    from sparselab.weights.sparsifier import Sparsifier


def calibration(
    parts: Parts,
    reader: ReadsInputs,
    network: torch.nn.Module,
    sparsifier: Sparsifier,
    splits: Any,
    device: torch.device,
) -> Calibration:
    """The inputs of ``sparsifier``'s layers on ``samples`` training examples of ``reader``, the same ones on every rank."""
    samples = reader.options.samples
    size = min(samples, parts.cell.trainer.batch_size)
    workers = parts.cell.trainer.workers
    loader = splits.loader(
        "train", size, derive_seed(parts.cell.seed, "calibration"), device=str(device), workers=workers
    )

    def batches() -> Iterator[torch.Tensor]:
        loader.position(0, 0)
        return (batch[0].to(device) for batch in islice(loader, -(-samples // size)))

    blocks = parts.family.blocks(network) if parts.family.has_blocks else []
    return Calibration(network, lambda batch: parts.family.logits(network, batch), sparsifier.slots, blocks, batches)
