"""No rule: whatever is positive fires, and a penalty keeps it rare [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inputs.models.allocation import ALLOCATIONS, Allocation

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.shared import Shared


@ALLOCATIONS.register("relu")
class Relu(Allocation):
    """Every positive magnitude (Bricken et al. 2023, Cunningham et al. 2023); the loss ``code_l1`` makes codes sparse."""

    def kept(self, magnitudes: Tensor, state: dict[str, Tensor], shared: Shared) -> Tensor:
        return magnitudes > 0
