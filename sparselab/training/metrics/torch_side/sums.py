"""Sums of vectors over batches and ranks. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Sums(Metric):
    """Add up vectors (size,), exactly where they hold counts."""

    total: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        self.total = self.total + values

    def compute(self) -> Tensor:
        return self.total
