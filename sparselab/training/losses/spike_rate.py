"""A penalty on how often neurons spike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("spike_rate")
class SpikeRate(ExtraLoss):
    """Mean spike of a layer's neurons over units, time steps and examples, the mean over layers (arXiv 2602.11206).

    Spikes are those of training, soft where the neuron's are: a rate of .5 may be many halves.
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="lambda, the factor of the rate, at least 0")

    options: Options
    needs_states = True
    needs_spikes = True

    def prepare(self, context: StepContext) -> None:
        context.watch_states()

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        import torch

        assert context.states is not None
        return torch.stack([spikes.float().mean() for spikes in context.states.blocks]).mean()
