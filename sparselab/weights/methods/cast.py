"""CAST: continued dense training in which the optimiser pulls what an N:M pattern would cut towards zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import ChangesMoments, LearnsTensors, MeasuresFirst, Reports
from sparselab.weights.matrix import as_matrix, stored
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.probe import Probe
    from sparselab.weights.slot import Slot, UpdateContext

MEASURED = 20  # batches on which l1=auto looks at gradients


@METHODS.register("cast")
class CAST(MeasuresFirst, ChangesMoments, LearnsTensors, Reports, Method):
    """Continuous adaptive sparse training (Huang et al. 2025, arXiv 2509.25996). The forward pass stays dense to the end.

    Every ``every`` updates, before the update t (from 0), the weights outside the N largest of each group are chosen. Inside
    AdamS their first moment becomes (1 - t/T) mu + (t/T) l1 sign(w): the loss lets go of them, and the pull takes over.
    After the last update the largest N of each group stay.

    With ``scales`` n > 0 the network computes with A w, where A has n trained values per output, one for each n-th of
    its inputs, starting at 1 and folded into the weight throughout.
    """

    patterns = patterns_where(lambda pattern: pattern.grouped)
    schedules = ("one_shot",)
    clears_state = False
    weight_grad = "dense"

    class Options(Options):
        l1: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
            description="pull in units of a gradient, at least 0, or auto: the median |gradient| at the start"
        )
        every: int = Field(ge=1, description="updates between two choices of what is pulled, at least 1")
        scales: int = Field(ge=0, description="trained scales per output of a layer; 0: none")

    options: Options

    @property
    def keeps_master(self) -> bool:  # type: ignore[override]
        return self.options.scales > 0

    # -- the pull ----------------------------------------------------------------------------------------------------

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        import torch

        strength = self.options.l1 if self.options.l1 != "auto" else usual_gradient(slots, probe)
        for slot in slots:
            slot.state["l1"] = torch.tensor(float(strength), device=slot.mask.device)
            slot.state["pulled"] = torch.zeros_like(slot.mask)

    def begin(self, slots: list[Slot], context: UpdateContext) -> None:
        self.progress = (context.step - 1) / context.total
        if (context.step - 1) % self.options.every == 0:
            for slot in slots:
                slot.state["pulled"] = ~slot.pattern.mask(slot.dense.abs())

    def blend(self, slot: Slot, weight: Tensor, first: Tensor) -> Tensor:
        import torch

        pull = weight.sign().mul_(slot.state["l1"]).sub_(first)
        return torch.addcmul(first, slot.state["pulled"].to(first.dtype), pull, value=self.progress)

    def pullback(self, slot: Slot) -> None:
        """The forward pass is dense: the gradient of w is that of A w, times A."""
        if slot.learned is not None:
            slot.grad.mul_(spread(slot, slot.learned))

    # -- the scales --------------------------------------------------------------------------------------------------

    def learned(self, slot: Slot) -> Tensor | None:
        import torch

        if not self.options.scales:
            return None
        outputs = as_matrix(slot, slot.mask).shape[0]
        return torch.ones(outputs, self.options.scales, dtype=slot.param.dtype, device=slot.param.device)

    def learn(self, slot: Slot) -> Tensor:
        """dL/dA: sums of dL/d(A w) times w over the inputs that share a scale."""
        import torch

        product = as_matrix(slot, slot.grad * slot.dense)
        owner = owners(product.shape[1], self.options.scales).to(product.device)
        return product @ torch.nn.functional.one_hot(owner, self.options.scales).to(product.dtype)

    def effective(self, slot: Slot, out: Tensor) -> None:
        super().effective(slot, out)
        if slot.learned is not None:
            out.mul_(spread(slot, slot.learned))

    # -- the cut -----------------------------------------------------------------------------------------------------

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        import torch

        mask = super().remask(slot, kept, context)
        size = slot.dense.abs()
        slot.state["cut"] = torch.stack([size[~mask].double().mean(), size[mask].double().mean()])
        return mask

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """``residual``: mean |w| of what was cut over mean |w| of what stayed, over all layers, just before the cut."""
        cut = [slot.state["cut"] * slot.mask.numel() for slot in slots if "cut" in slot.state]
        if not cut:
            return {}
        gone, stayed = sum(cut).tolist()  # type: ignore[union-attr]
        return {"residual": gone / stayed}


def usual_gradient(slots: list[Slot], probe: Probe) -> float:
    """The median |gradient| over the weights of ``slots``, averaged over some batches of the start."""
    import torch

    network = probe.copy()
    weights = [network.get_parameter(slot.name) for slot in slots]
    medians = [
        torch.cat([part.abs().flatten() for part in probe.gradients(network, weights, [batch])]).median()
        for batch in probe.batches(MEASURED)
    ]
    return float(torch.stack(medians).mean())


def owners(inputs: int, scales: int) -> Tensor:
    """(inputs,): input c of C has scale floor(c n / C)."""
    import torch

    return torch.arange(inputs) * scales // inputs


def spread(slot: Slot, scales: Tensor) -> Tensor:
    """Return a scale for each weight.

    Args:
        slot: the layer
        scales: (outputs, groups)

    Returns:
        (*weight).
    """
    owner = owners(as_matrix(slot, slot.mask).shape[1], scales.shape[1])
    return stored(slot, scales.detach()[:, owner.to(scales.device)])
