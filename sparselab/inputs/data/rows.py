"""Examples in memory, given as they are: a tensor of inputs and one of targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparselab.inputs.data.loader import Batch, Job, Loader
from sparselab.inputs.data.splits import PARTS, content_of


class Rows:
    """(n, *inputs) and (n, *targets) that lie on ``device``; whole numbers come out as int64, whatever they are kept in."""

    def __init__(self, inputs: Tensor, targets: Tensor, device: str = "cpu"):
        self.inputs, self.targets = inputs.to(device), targets.to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        for job in jobs:
            at = torch.from_numpy(job.rows[job.mine]).to(self.inputs.device, non_blocking=True)
            yield widened(self.inputs[at]), widened(self.targets[at])


def widened(numbers: Tensor) -> Tensor:
    return numbers if numbers.is_floating_point() else numbers.long()


@dataclass(frozen=True)
class RowSplits:
    """A pair of tensors for each of the three splits, by name."""

    parts: Mapping[str, tuple[Tensor, Tensor]]
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every input and target."""
        return content_of(tensor for part in PARTS for tensor in self.parts[part])

    def loader(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> Loader:
        """As :meth:`Splits.loader`; ``workers`` are not needed."""
        train = part == "train" if train is None else train
        return Loader(Rows(*self.parts[part], device), batch_size, seed, train, rank, world)
