"""No sparsity: every weight is kept [no torch]."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from sparselab.core.sparsity import PATTERNS, Placed, Sparsity

if TYPE_CHECKING:
    from torch import Tensor


@PATTERNS.register("dense")
class Dense(Sparsity):
    """``dense``: every weight is kept."""

    form = "dense"
    example = "dense"
    order = 99
    prunes = False

    def __str__(self) -> str:
        return "dense"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        return cls(1.0) if str(value).lower() == "dense" else None

    def own_count(self, shape: tuple[int, ...]) -> int:
        return prod(shape)

    def mask(self, on: Placed, score: Tensor, density: float, *, checked: bool, magnitude: bool) -> Tensor:
        import torch

        return torch.ones_like(score, dtype=torch.bool)

    def holds(self, on: Placed, there: Tensor, is_mask: bool, density: float | None) -> bool:
        return not is_mask or bool(there.all())
