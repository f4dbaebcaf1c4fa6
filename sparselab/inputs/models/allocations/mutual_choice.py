"""Mutual choice: the batch's budget goes to the best pairs anywhere [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inputs.models.allocation import ALLOCATIONS, Budgeted, best_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.shared import Shared


@ALLOCATIONS.register("mutual_choice")
class MutualChoice(Budgeted):
    """The ``k n`` largest magnitudes of a batch of n tokens (arXiv 2411.02124, abstract).

    The forward pass is that of BatchTopK (Bussmann et al. 2024). Alone, a token's features fire where they reach the mean of
    the smallest magnitude that batches kept [ours, as BatchTopK does].
    """

    thresholds = "one"

    def kept(self, magnitudes: Tensor, state: dict[str, Tensor], shared: Shared) -> Tensor:
        return best_pairs(magnitudes, self.options.k * len(magnitudes) * shared.world, shared)
