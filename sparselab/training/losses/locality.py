"""Neighbouring tokens that use the same experts: the losses of BlockFFN (arXiv 2507.08771)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.training.losses.adaptive import AdaptiveFactor
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.routing import GUARD, RoutingLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.mixture import Routing
    from sparselab.training.losses.context import StepContext


@LOSSES.register("activation_locality")
class ActivationLocality(RoutingLoss):
    """Binary cross-entropy of the token before, as a prediction of which experts a token uses (section 3.2).

    ``BCE(sigmoid(alpha s_left), sigmoid(alpha s))`` of scores s before the ReLU, the mean over tokens and experts. Both sides
    have a gradient, as in thunlp/BlockFFN, activation_context.py, unless ``detach``. A window's first token has none before it.
    """

    class Options(RoutingLoss.Options):
        weight: float = Field(ge=0, description="lambda_al, the factor of the loss, at least 0")
        alpha: float = Field(gt=0, description="sharpness: how soon a score counts as used, above 0")
        detach: bool = Field(description="true: only the prediction, the token before, has a gradient")

    options: Options

    def misfits(self, family: Family, data: DataSpec) -> list[Issue]:
        if data.inputs.length > 1:
            return []
        problem = f"compares neighbouring tokens, and a window of {data.name} has one"
        return [Issue(f"loss.{self.name}", problem, "write dataset.block=2 or more")]

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        from torch.nn import functional as F

        scores = self.options.alpha * routing.scores
        left, here = scores[:, :-1], scores[:, 1:].sigmoid()
        if present is not None:
            both = present[:, :-1] & present[:, 1:]
            left, here = left[both], here[both]
        return F.binary_cross_entropy_with_logits(left, here.detach() if self.options.detach else here)


@LOSSES.register("chunk_sparsification")
class ChunkSparsification(RoutingLoss):
    """Chance that some token of a chunk uses an expert, the mean over experts and chunks (section 3.2).

    ``P_i = 1 - exp(sum_k ln(1 - p_ik + 1e-5))``, p_ik the share of expert i at token k of the chunk; padding has p = 0. Its
    factor lambda_cs follows the loss (appendix B): see :class:`AdaptiveFactor`. Of several micro-batches an update's loss is
    their mean, of several processes all have the same factor.
    """

    class Options(RoutingLoss.Options):
        weight: float = Field(ge=0, description="lambda_cs at the start, at least 0")
        length: int = Field(ge=1, description="tokens of a chunk; must divide the window of text")
        settle: int = Field(ge=0, description="updates in which lambda_cs stays as it is, at least 0")
        every: int = Field(ge=1, description="updates of a window, after each of which lambda_cs moves, at least 1")
        least_rise: float = Field(
            ge=1, description="factor by which lambda_cs grows at least when it grows, at least 1"
        )
        cap: float | None = Field(ge=1, description="most times its start that lambda_cs may be; null: no bound")
        update: Literal["step", "linear"] = Field(description="step: at once, or linear: over the next window")

    options: Options
    seen: Tensor  # (2,) float64: sum and number of this window's losses

    def __init__(self, options: Any):
        super().__init__(options)
        o = self.options
        self.factor = AdaptiveFactor(o.settle, o.every, o.least_rise, o.cap, o.update == "linear")
        self.at = 0

    def misfits(self, family: Family, data: DataSpec) -> list[Issue]:
        length, block = self.options.length, data.inputs.length
        where = f"loss.{self.name}.length={length}"
        if length > block:
            return [Issue(where, f"a window of {data.name} has {block} tokens", f"write at most {block}")]
        if block % length:
            return [Issue(where, f"does not divide {data.name}'s window of {block} tokens", "choose a divisor of it")]
        return []

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        shares = routing.shares if present is None else routing.shares * present.unsqueeze(-1)
        chunks = shares.unflatten(1, (-1, self.options.length))
        return (1 - (1 - chunks + GUARD).log().sum(2).exp()).mean()

    def prepare(self, context: StepContext) -> None:
        import torch

        self.seen = torch.zeros(2, dtype=torch.float64, device=context.device)

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        import torch

        value = super().loss(context, batch, logits)
        self.begin(context.global_step)
        self.seen += torch.stack([value.detach().double(), torch.ones_like(self.seen[0])])
        return self.factor.at(context.global_step) * value

    def begin(self, done: int) -> None:
        """Prepare for the update after ``done`` others; at a window's end the factor moves."""
        from sparselab.inputs.models.shared import of_run

        if done == self.at:
            return
        self.at = done
        if done % self.options.every == 0:
            total, count = of_run().total(self.seen).tolist()
            self.seen.zero_()
            self.factor.move(done, total / count)

    def state(self) -> dict[str, Any]:
        return {"at": self.at, "seen": self.seen, "factor": self.factor.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.at, self.seen = state["at"], state["seen"].to(self.seen.device)
        self.factor.load(state["factor"])
