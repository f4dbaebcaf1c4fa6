"""Pruning as a game: every group of weights takes part in the network to a degree that it chooses by its own utility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.weights.capabilities import FindsCounts, LearnsTensors, Reports, TakesBiases
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.patterns.units import Tiled

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext

PARTICIPATION = "participation"
"""The key of ``slot.state`` under which participation levels lie that no optimiser moves."""

DECIDED = 0.05
"""How near to 0 or 1 a level has to be at the end of a run to count as a decision."""


@METHODS.register("pruning_game")
class PruningGame(LearnsTensors, TakesBiases, FindsCounts, Reports, Method):
    """Equilibrium-driven pruning (Shah & Khan 2025, arXiv 2512.22106): the network computes with s_i theta_i, s_i in [0, 1].

    A player is a unit of the pattern (a neuron with its bias for ``unit``, a weight for a fraction), theta_i its weights. All
    s_i begin at 1. With m_i = dL/ds_i and g_i = <dL/dtheta_i, theta_i> = s_i m_i, player i climbs the gradient of its
    utility in s_i (equation 18)

        alpha b_i - 2 beta |theta_i|^2 s_i - gamma - eta sum_{j != i} s_j <theta_i, theta_j>,

    projected on [0, 1], where j are the other players of the layer. ``benefit`` is b_i: ``literal`` g_i, as printed, which
    rewards what raises the loss; ``descent`` -g_i; ``loss`` -m_i, so that s follows the gradient of loss plus costs;
    ``none`` 0. At s_i = 0 the slope of |s_i| is taken from the right, so a player returns only where it gains more than gamma.

    ``stepper``: ``plain`` is Algorithm 1, ``participation_lr`` times that gradient; ``optimiser`` lets the cell's optimiser
    move s at that rate; ``reply`` jumps to the best reply of equation 14. Both levels use the gradient of the same batch.
    When the mask is made (the end of the run) players with s_i < ``eps`` go. Sparsity is an outcome, whatever was asked for.
    """

    class Options(Options):
        alpha: float = Field(ge=0, description="weight of the benefit, at least 0")
        beta: float = Field(ge=0, description="cost of |theta_i|^2 s_i^2, at least 0")
        gamma: float = Field(ge=0, description="cost of s_i, at least 0")
        eta: float = Field(ge=0, description="cost of likeness to the layer's other players, at least 0")
        participation_lr: float = Field(gt=0, description="learning rate of s, above 0")
        stepper: Literal["plain", "optimiser", "reply"] = Field(description="plain, optimiser or reply")
        benefit: Literal["literal", "descent", "loss", "none"] = Field(description="literal, descent, loss or none")
        bias_in_group: bool = Field(description="true: a unit's bias is one of its weights")
        eps: float = Field(ge=0, le=1, description="players below it go, in [0, 1]")
        least: int = Field(ge=0, description="players of every layer that stay, at least 0")

    options: Options
    patterns = patterns_where(lambda pattern: pattern.free or issubclass(pattern, Tiled), whole=True)
    schedules = ("one_shot",)
    keeps_master = True
    weight_grad = "dense"

    def __init__(self, options: Any):
        super().__init__(options)
        self.next: dict[str, Tensor] = {}  # levels of the update under way, which a loss scaler may skip

    @property
    def takes_biases(self) -> bool:  # type: ignore[override]
        return self.options.bias_in_group

    def learned(self, slot: Slot) -> Tensor | None:
        import torch

        if self.options.stepper != "optimiser":
            return None
        return torch.ones_like(summed(slot, slot.dense))

    def learning(self) -> dict[str, Any]:
        return {"lr": self.options.participation_lr, "schedule": "constant"}

    def learn(self, slot: Slot) -> Tensor:
        return -self.ascent(slot)

    def participation(self, slot: Slot) -> Tensor:
        """Levels s of the layer's players, to be changed in place."""
        import torch

        if slot.learned is not None:
            return slot.learned.detach()
        if PARTICIPATION not in slot.state:
            slot.state[PARTICIPATION] = torch.ones_like(summed(slot, slot.dense))
        return slot.state[PARTICIPATION]

    def gates(self, slot: Slot) -> Tensor:
        """The same, of players that the mask dropped 0."""
        s = self.participation(slot)
        return s if slot.kept == slot.mask.numel() else s * kept(slot)

    def effective(self, slot: Slot, out: Tensor) -> None:
        import torch

        gates = self.gates(slot)
        torch.mul(slot.dense, spread(slot, gates), out=out)
        if slot.bias is not None and (bias := slot.dense_bias) is not None:
            torch.mul(bias, gates.view(-1), out=slot.bias.data)

    def pullback(self, slot: Slot) -> None:
        """dL/dtheta = s dL/d(s theta); what s does next is worked out from the gradient as it arrives."""
        if slot.learned is None:
            self.next[slot.name] = self.moved(slot)
        gates = self.gates(slot)
        slot.grad.mul_(spread(slot, gates))
        if slot.bias is not None and slot.bias.grad is not None:
            slot.bias.grad.mul_(gates.view(-1))

    def after_step(self, slot: Slot) -> None:
        s = self.participation(slot)
        if slot.learned is None:
            s.copy_(self.next.pop(slot.name))
        s.clamp_(0, 1)
        if slot.kept < slot.mask.numel():
            s.mul_(kept(slot))

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        from sparselab.weights.select import largest

        s = self.participation(slot)
        stay = s >= self.options.eps
        if self.options.least:
            stay |= largest(s.flatten(), min(self.options.least, s.numel())).view_as(s)
        return spread(slot, stay)

    # -- the game ---------------------------------------------------------------------------------------------------

    def moved(self, slot: Slot) -> Tensor:
        """The levels after this update, where no optimiser moves them."""
        s = self.participation(slot)
        if self.options.stepper == "reply":
            o = self.options
            return best_reply(self.benefit(slot), rivalry(slot, s), norms(slot), o.alpha, o.beta, o.gamma, o.eta)
        return (s + self.options.participation_lr * self.ascent(slot)).clamp_(0, 1)

    def ascent(self, slot: Slot) -> Tensor:
        """The gradient of every player's utility in its own level (equation 18)."""
        o, s = self.options, self.participation(slot)
        gradient = o.alpha * self.benefit(slot) - 2 * o.beta * norms(slot) * s - o.gamma
        return gradient - o.eta * rivalry(slot, s) if o.eta else gradient

    def benefit(self, slot: Slot) -> Tensor:
        """b_i of every player."""
        kind, s = self.options.benefit, self.participation(slot)
        if kind == "none":
            return s.new_zeros(s.shape)
        slope = marginal(slot)
        return {"literal": s * slope, "descent": -s * slope, "loss": -slope}[kind]

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """Numbers of the players: ``players``, their share that went (``pruned``), and ``kept_1``, ``kept_2`` … by layer.

        ``participation``: the mean s; ``group_norm_squared``: the mean |theta|^2; ``undecided``: the share of s between 0.05
        and 0.95, ``taking_part``: that of s from 0.95 on.
        """
        import torch

        s = torch.cat([self.participation(slot).flatten() for slot in slots])
        stay = [int(kept(slot).sum()) for slot in slots]
        return {
            "players": float(s.numel()),
            "pruned": 1 - sum(stay) / s.numel(),
            "participation": float(s.mean(dtype=torch.float64)),
            "group_norm_squared": float(torch.cat([norms(slot).flatten() for slot in slots]).mean(dtype=torch.float64)),
            "undecided": float(((s > DECIDED) & (s < 1 - DECIDED)).double().mean()),
            "taking_part": float((s >= 1 - DECIDED).double().mean()),
            **{f"kept_{i}": float(number) for i, number in enumerate(stay, 1)},
        }


def best_reply(
    benefit: Tensor, rivals: Tensor, squares: Tensor, alpha: float, beta: float, gamma: float, eta: float
) -> Tensor:
    """The level with the highest utility against the others' levels (equation 14), in [0, 1].

    Args:
        benefit: (*players) b_i
        rivals: (*players) sum of s_j <theta_i, theta_j> over the others
        squares: (*players) |theta_i|^2
        alpha: weight of the benefit
        beta: cost of |theta_i|^2 s_i^2
        gamma: cost of s_i
        eta: cost of ``rivals``

    Returns:
        (*players); where no quadratic cost holds a player, all or nothing.
    """
    import torch

    gain, bend = alpha * benefit - gamma - eta * rivals, 2 * beta * squares
    inside = (gain / bend.where(bend > 0, 1.0)).clamp(0, 1)
    return torch.where(bend > 0, inside, (gain > 0).to(gain.dtype))


def marginal(slot: Slot) -> Tensor:
    """dL/ds of every player, from the gradient of the effective weights: <dL/d(s theta), theta>."""
    found = summed(slot, slot.grad * slot.dense)
    bias = slot.dense_bias
    if slot.bias is not None and slot.bias.grad is not None and bias is not None:
        found += (slot.bias.grad * bias).view_as(found)
    return found


def norms(slot: Slot) -> Tensor:
    """|theta|^2 of every player."""
    found = summed(slot, slot.dense.square())
    if slot.dense_bias is not None:
        found += slot.dense_bias.square().view_as(found)
    return found


def rivalry(slot: Slot, s: Tensor) -> Tensor:
    """Sum of s_j <theta_i, theta_j> over the other players of the layer, of every player i, at a cost linear in weights.

    Args:
        slot: the layer
        s: (*players) levels

    Returns:
        (*players).
    """
    members = _members(slot)
    theta = _apart(slot, slot.dense)
    level = s
    for dim in members:
        level = level.unsqueeze(dim)
    others = tuple(dim for dim in range(theta.ndim) if dim not in members)
    joint = theta * (theta * level).sum(others, keepdim=True)
    found = joint.sum(members) if members else joint
    if slot.dense_bias is not None:
        bias = slot.dense_bias.view_as(found)
        found = found + bias * (bias * s).sum()
    return found - s * norms(slot)


def summed(slot: Slot, tensor: Tensor) -> Tensor:
    """Sums of a tensor over the weights of every player.

    Args:
        slot: the layer
        tensor: (*weight)

    Returns:
        (*players), a new tensor.
    """
    members = _members(slot)
    return _apart(slot, tensor).sum(members) if members else tensor.clone()


def spread(slot: Slot, values: Tensor) -> Tensor:
    """A value per player as a tensor of the weight's shape.

    Args:
        slot: the layer
        values: (*players), of any dtype

    Returns:
        (*weight), the dtype of ``values``.
    """
    pattern = slot.pattern.sparsity
    if isinstance(pattern, Tiled):
        return pattern.together(slot.pattern, values, tuple(slot.mask.shape))
    return values


def kept(slot: Slot) -> Tensor:
    """The players that the mask keeps, (*players) bool."""
    members = _members(slot)
    return _apart(slot, slot.mask).amax(members) if members else slot.mask


def _apart(slot: Slot, tensor: Tensor) -> Tensor:
    pattern = slot.pattern.sparsity
    return pattern.apart(slot.pattern, tensor) if isinstance(pattern, Tiled) else tensor


def _members(slot: Slot) -> tuple[int, ...]:
    pattern = slot.pattern.sparsity
    return pattern.members if isinstance(pattern, Tiled) else ()
