"""SynFlow: a mask before training that needs no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import MeasuresFirst
from sparselab.weights.count import nearest_count
from sparselab.weights.method import METHODS, Method

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.probe import Probe
    from sparselab.weights.slot import Slot, UpdateContext


@METHODS.register("synflow")
class SynFlow(MeasuresFirst, Method):
    """Synaptic flow (Tanaka et al. 2020, arXiv 2006.05467, algorithm 1): |w dR/dw| of the network with absolute values.

    R is the sum of what the network puts out for an input of ones when all its parameters are replaced by their absolute
    values. After round k of ``rounds`` the density is d^(k / rounds), of all layers together, and what is gone stays gone:
    so no layer loses everything before it has to. Norms use running statistics, as they are before training. Measured in
    float64. Where inputs are no numbers (tokens) the first training example stands for the ones.
    """

    schedules = ("constant",)

    class Options(Options):  # type: ignore[misc, unused-ignore]
        rounds: int = Field(ge=1, description="steps on the way to the density, at least 1")

    options: Options

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        import torch

        from sparselab.weights.probe import differentiable_twice
        from sparselab.weights.select import largest

        assert probe.outputs is not None
        network = probe.copy().eval().double()
        for parameter in network.parameters():
            parameter.data.abs_()
        network.requires_grad_(False)
        weights = [network.get_parameter(slot.name).requires_grad_() for slot in slots]
        inputs = probe.batches(1)[0][0][:1]
        inputs = torch.ones_like(inputs, dtype=torch.float64) if inputs.is_floating_point() else inputs
        total = sum(slot.mask.numel() for slot in slots)
        density = sum(slot.pattern.sparsity.density * slot.mask.numel() for slot in slots) / total
        for done in range(self.options.rounds):
            with torch.enable_grad(), differentiable_twice(network):
                flow = probe.outputs(network, inputs).sum()
                gradients = torch.autograd.grad(flow, weights)
            scores = [(weight * gradient).abs().detach() for weight, gradient in zip(weights, gradients, strict=True)]
            count = max(1, nearest_count(density ** ((done + 1) / self.options.rounds), total))
            kept = largest(torch.cat([score.flatten() for score in scores]), count).split([s.numel() for s in scores])
            for weight, mask in zip(weights, kept, strict=True):
                weight.data.mul_(mask.view(weight.shape))
        # Their order is what counts; in float32 small ones would tie at 0.
        self.scores = {slot.name: (score + 1e-300).log() for slot, score in zip(slots, scores, strict=True)}

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return self.scores[slot.name]
