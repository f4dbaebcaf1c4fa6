"""An l1 penalty whose strength moves over the run: sparsity-aware fine-tuning and unlearning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("l1")
class L1(ExtraLoss):
    """``gamma_t * ||theta||_1`` over ALL parameters, biases and norms too ("l1-sparse MU", Jia et al.

    2023, arXiv 2304.04934; OPTML-Group/Unlearn-Sparse unlearn/FT_prune.py).

    The run has ``epochs`` parts of equal length; in part e = 0, 1, ... ``gamma_t = weight * (1 - e / (epochs - without))``
    until the last ``without`` parts, which have none. Where ``without`` is ``epochs`` the factor is constant, as in the code.
    ``grow`` is ``weight * (e + 1) / (epochs - without)``. Its gradient is the sign, 0 at 0: nothing becomes exactly zero.
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="gamma, the factor of the norm, at least 0")
        shape: Literal["decay", "constant", "grow"] = Field(description="decay, constant or grow")
        epochs: int = Field(ge=1, description="parts of the run in which gamma stays as it is, at least 1")
        without: int = Field(ge=0, description="last parts that have no penalty, from 0 to epochs")

        @model_validator(mode="after")
        def _not_longer(self) -> L1.Options:
            if self.without > self.epochs:
                raise ValueError(f"without={self.without} is more than epochs={self.epochs}")
            return self

    options: Options

    def share(self, part: int) -> float:
        """gamma_t over gamma in part ``part`` of the run, from 0."""
        o = self.options
        penalised = o.epochs - o.without
        if o.shape == "constant" or not penalised:
            return 1.0
        if part >= penalised:
            return 0.0
        return 1 - part / penalised if o.shape == "decay" else (part + 1) / penalised

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        part = context.global_step * self.options.epochs // context.steps
        size: Any = sum(p.abs().sum() for p in context.network.parameters() if p.requires_grad)
        loss: Tensor = self.share(part) * size
        return loss
