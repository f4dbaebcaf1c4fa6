"""The share of columns that are positive in no row, over batches and ranks. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class NeverPositive(Metric):
    """The share of features that fire in none of the codes (n, features)."""

    fired: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("fired", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.fired = self.fired + (codes > 0).sum(0)

    def compute(self) -> Tensor:
        return (self.fired == 0).double().mean()
