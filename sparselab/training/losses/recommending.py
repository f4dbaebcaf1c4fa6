"""Penalties of recommenders: on what a batch looks up, and on a latent code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.data_types import Taken, Users
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("looked_up_l2")
class LookedUpL2(ExtraLoss):
    """Half the squared length of the vectors that a batch looks up, before propagation, over its examples.

    Of LightGCN (arXiv 2002.02126, equation 15; shuyao-wang/DSL LightGCN/model.py): other rows of the table are left alone.
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="factor of the penalty, at least 0")

    options: Options
    needs_pair = (Users, Taken)
    needs_given = "looked_up"

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        network: Any = context.network
        size: Tensor = network.looked_up(batch[0]).float().square().sum()
        return size / 2 / len(logits)


@LOSSES.register("latent_kl")
class LatentKL(ExtraLoss):
    """KL divergence of a latent code from a standard normal distribution, with a factor that rises.

    At update u, from 0, ``min(weight, u / updates)`` (Liang et al. 2018, arXiv 1802.05814, section 2.2.2; shuyao-wang/DSL
    MultVAE/main.py).
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="largest factor, at least 0")
        updates: int = Field(
            ge=0, description="updates after which the factor would be 1; 0: the largest from the start"
        )

    options: Options
    needs_pair = (Users, Taken)
    needs_given = "divergence"

    def factor(self, update: int) -> float:
        """The factor at an update, from 0."""
        o = self.options
        return min(o.weight, update / o.updates) if o.updates else o.weight

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        network: Any = context.network
        divergence: Tensor = network.divergence
        return divergence * (self.factor(context.global_step) / self.options.weight)
