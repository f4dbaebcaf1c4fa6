"""A penalty on the codes of a sparse auto-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_types import Activations
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("code_l1")
class CodeL1(ExtraLoss):
    """The sum of a vector's code over the vector's length, the mean over vectors (openai/sparse_autoencoder, loss.py)."""

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="factor of the penalty, at least 0")

    options: Options
    needs_states = True
    needs_pair = (Activations, Activations)

    def prepare(self, context: StepContext) -> None:
        context.watch_states()

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        assert context.states is not None
        codes = context.states.blocks[1].float()
        return (codes.abs().sum(-1) / batch[0].norm(dim=-1)).mean()
