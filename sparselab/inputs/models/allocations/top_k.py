"""Token choice: every token has as many features [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inputs.models.allocation import ALLOCATIONS, Budgeted

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.shared import Shared


@ALLOCATIONS.register("topk")
class TopK(Budgeted):
    """The ``k`` largest magnitudes of each token (Makhzani and Frey 2014; Gao et al. 2024, arXiv 2406.04093)."""

    def kept(self, magnitudes: Tensor, state: dict[str, Tensor], shared: Shared) -> Tensor:
        import torch

        at = magnitudes.topk(self.options.k, sorted=False).indices
        return torch.zeros_like(magnitudes, dtype=torch.bool).scatter_(-1, at, True)
