"""Masks that are searched for by draws: a logit beside each weight, trained through a concrete relaxation of its gate."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.alternating import AlternatingUpdate
from sparselab.weights.capabilities import Alternates, DrawsMasks, FollowsSchedule, LearnsTensors, Reports
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext

TINY = 1e-10
"""How near to 0 a uniform number may come before its logarithm is taken."""

WHOLE = 1e-6
"""How near to 1 the density may come whose logit is taken."""

PERCENT = 100.0
"""The budget's error is in percent of the budget."""


@METHODS.register("cts")
class ConcreteTicketSearch(FollowsSchedule, DrawsMasks, Alternates, LearnsTensors, Reports, Method):
    """Concrete Ticket Search (Arora & Teuscher 2025, arXiv 2512.07142): the mask that a loss asks of a network as it stands.

    Up to the mask (``schedule.at``) the weights rest and their logits phi move. Every update computes with the gates
    m = sigmoid(L / tau + phi), L = ln u - ln(1 - u), one draw of u for the whole batch; the gradient reaches phi through m.
    Then the largest phi stay, and in what is left of the run the weights train under that mask. All phi begin at
    ln(d / (1 - d)), so that the expected density sum sigmoid(phi) is the wanted density d.

    ``scale`` times the cell's loss is the objective. The budget T is ``slack`` times the wanted number of weights, and
    err = 100 (sum sigmoid(phi) / T - 1) the miss. ``gradbalance``: the gradient of phi is g_t + lambda g_s, of objective and
    err, where lambda follows |g_t| / |g_s| (0 while err <= 0) as a moving average that moves by ``smoothing``. ``lagrange``
    is the baseline: lambda climbs by ``multiplier_lr`` times err, and there is no slack.
    """

    patterns = patterns_where(lambda pattern: pattern.prunes and pattern.single)
    schedules = ("one_shot",)
    keeps_master = True

    class Options(Options):  # type: ignore[misc, unused-ignore]
        balance: Literal["gradbalance", "lagrange"] = Field(description="gradbalance or lagrange")
        tau: float = Field(gt=0, description="temperature of the gates, above 0")
        scale: float = Field(gt=0, description="what the loss is multiplied by, above 0")
        slack: float = Field(ge=1, description="budget of gradbalance over the wanted number of weights, at least 1")
        smoothing: float = Field(gt=0, le=1, description="share of the new multiplier of gradbalance, in (0, 1]")
        multiplier_lr: float = Field(gt=0, description="learning rate of the multiplier of lagrange, above 0")

    options: Options

    def __init__(self, options: Any):
        super().__init__(options)
        self.gates: dict[str, Tensor] = {}  # m of the update under way
        self.gradients: dict[str, Tensor] = {}

    def searches(self, step: int, total: int) -> bool:
        """True if update ``step`` is one of the search."""
        return step <= self.schedule.updates(total)[0]

    def alternating_update(self, step: int, total: int) -> AlternatingUpdate:
        if self.searches(step, total):
            return AlternatingUpdate(weights=False, others=False)
        return AlternatingUpdate(learned=False)

    def learned(self, slot: Slot) -> Tensor:
        import torch

        density = min(slot.pattern.sparsity.density, 1 - WHOLE)
        return torch.full_like(slot.dense, log(density / (1 - density)))

    def draw(self, slot: Slot, context: UpdateContext, out: Tensor) -> None:
        import torch

        u = context.random(slot).to(out.dtype).clamp_(TINY, 1 - TINY)
        gates = self.gates[slot.name] = torch.sigmoid(u.logit() / self.options.tau + self.logits(slot))
        torch.mul(slot.dense, gates, out=out)

    def before_learning(self, slots: list[Slot]) -> None:
        """The gradients of all logits: of the objective, and of the budget times the multiplier."""
        import torch

        wanted = sum(slot.pattern.sparsity.density * slot.mask.numel() for slot in slots)
        target = wanted * (self.options.slack if self.options.balance == "gradbalance" else 1.0)
        task, budget, parts = {}, {}, []
        for slot in slots:
            gates, open_ = self.gates[slot.name], torch.sigmoid(self.logits(slot))
            task[slot.name] = self.options.scale * slot.dense * slot.grad * gates * (1 - gates)
            budget[slot.name] = (PERCENT / target) * open_ * (1 - open_)
            parts.append(open_.sum(dtype=torch.float64))
        expected = torch.stack(parts).sum()
        error = PERCENT * (expected / target - 1)
        state = slots[0].state
        before = state.get("multiplier")
        strength = norm(task.values())
        if self.options.balance == "gradbalance":
            balanced = strength / norm(budget.values()).clamp(min=TINY)
            new = torch.where(error > 0, balanced, torch.zeros_like(balanced))
            if before is not None:
                new = torch.lerp(before, new, self.options.smoothing)
            used = new
        else:
            used = torch.zeros_like(error) if before is None else before
            new = used + self.options.multiplier_lr * error
        if bool(strength.isfinite()):  # a loss scaler skips updates whose gradients are not
            state["multiplier"] = new
        self.gradients = {name: task[name] + used.to(task[name].dtype) * budget[name] for name in task}

    def learn(self, slot: Slot) -> Tensor:
        return self.gradients.pop(slot.name)

    @staticmethod
    def logits(slot: Slot) -> Tensor:
        """phi, without its gradient."""
        assert slot.learned is not None
        return slot.learned.detach()

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return self.logits(slot)

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """``expected_density``: the mean of sigmoid(phi); ``open``: the share of phi above 0; ``multiplier``: the last one."""
        import torch

        logits = torch.cat([self.logits(slot).flatten() for slot in slots])
        multiplier = slots[0].state.get("multiplier")
        return {
            "expected_density": float(torch.sigmoid(logits).mean(dtype=torch.float64)),
            "open": float((logits > 0).double().mean()),
            **({} if multiplier is None else {"multiplier": float(multiplier)}),
        }


def norm(tensors: Any) -> Tensor:
    """The Euclidean norm of all entries, in float64: squares of small gradients do not vanish."""
    import torch

    squares = [torch.linalg.vector_norm(tensor, dtype=torch.float64).square() for tensor in tensors]
    return torch.stack(squares).sum().sqrt()
