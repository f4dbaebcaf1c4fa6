"""Examples in memory, given as they are: a tensor of inputs and one of targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from sparselab.inputs.data.loader import Batch, InMemory, Job, Source, sent
from sparselab.inputs.data.splits import PARTS, Loads, content_of


class Rows(InMemory):
    """(n, *inputs) and (n, *targets) that lie on ``device``; whole numbers come out as int64, whatever they are kept in."""

    def __init__(self, inputs: Tensor, targets: Tensor, device: str = "cpu"):
        self.inputs, self.targets = inputs.to(device), targets.to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, job: Job) -> Batch:
        at = sent(job.rows[job.mine], self.inputs.device)
        return widened(self.inputs[at]), widened(self.targets[at])


def widened(numbers: Tensor) -> Tensor:
    """Widen integers.

    Args:
        numbers: any shape

    Returns:
        The same shape: floats as they are, integers as int64.
    """
    return numbers if numbers.is_floating_point() else numbers.long()


@dataclass(frozen=True)
class RowSplits(Loads):
    """A pair of tensors for each of the three splits, by name."""

    parts: Mapping[str, tuple[Tensor, Tensor]]
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every input and target."""
        return content_of(tensor for part in PARTS for tensor in self.parts[part])

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        return Rows(*self.parts[part], device)
