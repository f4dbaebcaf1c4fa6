"""The loss that gives a ReLU router its sparsity: ReMoE's balanced l1 (Wang et al. 2024, arXiv 2412.14711)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.routing import RoutingLoss, tokens

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.mixture import Routing
    from sparselab.training.losses.context import StepContext


@LOSSES.register("remoe_l1")
class ReMoEL1(RoutingLoss):
    """``N / (T^2 k) sum_e (sum_t A_te) n_e`` of N experts and T tokens, n_e of which use expert e.

    Its coefficient starts at ``weight``. After an update in which more than k experts a token were used, on average over the
    network, it is multiplied by ``factor``, else divided by it, and never is below its start (thunlp/BlockFFN, activation.py).
    """

    class Options(RoutingLoss.Options):
        weight: float = Field(ge=0, description="coefficient at the start, at least 0")
        k: float = Field(gt=0, description="experts of a token that it steers to, on average, above 0")
        factor: float = Field(gt=1, description="by which the coefficient moves after each update, above 1")

    options: Options
    seen: Tensor  # (3,) float64: the coefficient over its start; of the update under way, gates that are not 0, and all gates

    def __init__(self, options: Any):
        super().__init__(options)
        self.at = 0

    def misfits(self, family: Family, data: DataSpec) -> list[Issue]:
        experts = getattr(family.options, "experts", None)
        if experts is None or self.options.k <= experts:
            return []
        return [Issue(f"loss.{self.name}.k={self.options.k:g}", f"there are {experts} experts", f"at most {experts}")]

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        import torch

        gates = tokens(routing.gates, present)
        count, experts = gates.shape
        used = (gates.detach() != 0).float().sum(0)
        self.seen[1:] += torch.stack([used.double().sum(), torch.full_like(self.seen[0], gates.numel())])
        total: Tensor = experts / (count**2 * self.options.k) * (gates.sum(0) * used).sum()
        return total

    def prepare(self, context: StepContext) -> None:
        import torch

        self.seen = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, device=context.device)

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        from sparselab.inputs.models.mixture import mixtures

        if context.global_step != self.at:
            self.at = context.global_step
            self.move(mixtures(context.network)[0].experts)
        value = super().loss(context, batch, logits)
        return self.seen[0].to(value.dtype) * value

    def move(self, experts: int) -> None:
        """Move the coefficient by what the last update used of so many ``experts``; nothing waits for the device."""
        import torch

        from sparselab.inputs.models.shared import of_run

        now, factor = self.seen[0], self.options.factor
        active, total = of_run().total(self.seen[1:])
        moved = torch.where(active / total > self.options.k / experts, now * factor, (now / factor).clamp(min=1.0))
        self.seen = torch.stack([moved, torch.zeros_like(moved), torch.zeros_like(moved)])

    def state(self) -> dict[str, Any]:
        return {"at": self.at, "seen": self.seen}

    def load(self, state: dict[str, Any]) -> None:
        self.at, self.seen = state["at"], state["seen"].to(self.seen.device)
