"""Exact sums over a split, of torchmetrics [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def totals(*names: str) -> dict[str, Any]:
    """A sum in float64 by name, over batches and ranks. What is not finite stays in it, so that the run can be refused."""
    import torch
    from torchmetrics import SumMetric

    return {name: SumMetric(nan_strategy="disable").set_dtype(torch.float64) for name in names}
