"""Decay of the matrix that two linear factors stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.core.options import Options as AnyOptions
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("folded_decay")
class FoldedDecay(ExtraLoss):
    """Half the squared norm of V U, summed over layers that compute V U x (Sparse-IFT, arXiv 2303.11525, for ``uv: linear``).

    ``weight`` is what a weight decay is elsewhere: decaying each factor by itself is another penalty, and weaker on the
    product. Layers with something between their factors have no product and take no part.
    """

    class Options(AnyOptions):
        weight: float = Field(ge=0, description="a weight decay, at least 0")

    def prepare(self, context: StepContext) -> None:
        self._layers: list[Any] = [module for module in context.network.modules() if folds(module)]
        if not self._layers:
            fix = "write model.transform={name: sparse_factorized, sparsity: 0.5, uv: linear}"
            refuse("loss.folded_decay", "no layer is a product of linear factors", fix)

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return 0.5 * sum(layer.folded().float().square().sum() for layer in self._layers)


def folds(module: Any) -> bool:
    """True if a module says what matrix its factors stand for."""
    return callable(getattr(module, "folded", None)) and module.folded() is not None
