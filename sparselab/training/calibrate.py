"""Training examples through a network, for methods that ask what layers read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.model_spec import EXPERTS
from sparselab.core.seeds import derive_seed
from sparselab.weights.calibration import Calibration

if TYPE_CHECKING:
    from sparselab.training.parts import Parts
    from sparselab.training.tasks.task import Batch
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
    # A router sends positions to experts in an order of its own, in which padding can no longer be told from tokens.
    alone = any(slot.layer.kind in EXPERTS for slot in sparsifier.slots)
    loader = splits.loader(
        "train", size, derive_seed(parts.cell.seed, "calibration"), device=str(device), workers=workers
    )

    def batches() -> Iterator[Batch]:
        loader.position(0, 0)
        for index, batch in enumerate(islice(loader, -(-samples // size))):
            with torch.random.fork_rng(devices=[]):  # what a task draws is the same in every pass
                torch.manual_seed(derive_seed(parts.cell.seed, "calibration", index))
                seen = parts.task.batch(tuple(part.to(device) for part in batch))
            there = parts.task.present(seen) if alone else None
            yield from [seen] if there is None else unpadded(seen, there)

    def forward(batch: Batch) -> torch.Tensor:
        return parts.family.logits(network, batch[0])

    blocks = parts.family.blocks(network) if parts.family.has_blocks else []
    return Calibration(network, forward, sparsifier.slots, blocks, batches, parts.task.present)


def unpadded(batch: Batch, there: torch.Tensor) -> Iterator[Batch]:
    """Yield the examples of a batch one by one, each cut behind its last token.

    batch: tensors whose first axis is the example; those whose last axis is the position are cut. there: bool (n, t), False
    where a position is padding, which comes after the tokens.
    """
    length = there.shape[-1]
    ends = (there * torch.arange(1, length + 1, device=there.device)).amax(-1).clamp(min=1)
    for i, end in enumerate(ends.tolist()):
        example = [part[i : i + 1] for part in batch]
        yield tuple(part[..., :end] if part.ndim > 1 and part.shape[-1] == length else part for part in example)
