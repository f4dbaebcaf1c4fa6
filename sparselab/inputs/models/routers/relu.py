"""Router without a normalisation: the positive scores themselves [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inputs.models.router import ROUTERS, Rectified

if TYPE_CHECKING:
    from torch import Tensor


@ROUTERS.register("relu")
class ReLU(Rectified):
    """``A = ReLU(scores)``: the router of ReMoE (Wang et al. 2024, arXiv 2412.14711), which a loss makes sparse."""

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        return scores.relu()
