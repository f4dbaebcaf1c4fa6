"""A mixture of experts in the place of a feed-forward layer. Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sparselab.inputs.models.router import Router

STD = 0.02
"""Standard deviation of initial weights, transformers' own for Llama."""


class Routing(NamedTuple):
    """The way that tokens went through one mixture.

    gates: (…, experts) float32. scores, shares: (…, scored) float32, as :class:`Router` has them.
    """

    gates: Tensor
    scores: Tensor
    shares: Tensor


class Routed(nn.Linear):
    """The linear layer of a router with its rule: (…, width) -> :class:`Routing`."""

    def __init__(self, width: int, experts: int, rule: Router):
        super().__init__(width, rule.scored(experts), bias=False)
        nn.init.normal_(self.weight, 0.0, STD)
        self.rule = rule
        self.gain = nn.Parameter(torch.ones(rule.scored(experts))) if rule.gained else None
        self.kept: Routing | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the last pass's routing, whose graph cannot be copied."""
        return {**self.__dict__, "kept": None}

    def forward(self, x: Tensor) -> Routing:  # type: ignore[override]
        scores = F.linear(x, self.weight).float()
        gain = None if self.gain is None else self.gain.float()
        routing = Routing(self.rule.gates(scores, gain, self.training), scores, self.rule.shares(scores))
        if self.training and torch.is_grad_enabled():
            self.kept = routing
        return routing


class Mixture(nn.Module):
    """(…, width) -> (…, width): the sum of all experts' outputs, each times its gate.

    An expert is ``W_down SiLU(W_up x)``, gated ``W_down (SiLU(W_gate x) * W_up x)``. All of them are one wide layer, whose
    inner activations are multiplied by the gates before the way down (thunlp/BlockFFN, moe_modules.py).
    """

    def __init__(self, width: int, inner: int, experts: int, rule: Router, gated: bool):
        super().__init__()
        self.experts, self.inner = experts, inner
        self.router = Routed(width, experts, rule)
        self.gate_proj = nn.Linear(width, experts * inner, bias=False) if gated else None
        self.up_proj = nn.Linear(width, experts * inner, bias=False)
        self.down_proj = nn.Linear(experts * inner, width, bias=False)
        for layer in filter(None, (self.gate_proj, self.up_proj, self.down_proj)):
            nn.init.normal_(layer.weight, 0.0, STD)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).gates
        hidden = F.silu(self.up_proj(x)) if self.gate_proj is None else F.silu(self.gate_proj(x)) * self.up_proj(x)
        scaled = hidden.unflatten(-1, (self.experts, self.inner)) * gates.to(hidden.dtype).unsqueeze(-1)
        return self.down_proj(scaled.flatten(-2))

    def sizes(self) -> Tensor:
        """(experts,) float64: weights of each expert that are not 0."""
        into = [layer.weight for layer in (self.gate_proj, self.up_proj) if layer is not None]
        counts = sum(torch.count_nonzero(weight.unflatten(0, (self.experts, self.inner)), (1, 2)) for weight in into)
        out = torch.count_nonzero(self.down_proj.weight.unflatten(1, (self.experts, self.inner)), (0, 2))
        return (counts + out).double()


def mixtures(network: nn.Module) -> list[Mixture]:
    """The mixtures of a network, in forward order."""
    return [module for module in network.modules() if isinstance(module, Mixture)]


def routings(network: nn.Module) -> list[Routing]:
    """How tokens went through each mixture in the training pass under way, with the graph."""
    kept = [mixture.router.kept for mixture in mixtures(network)]
    return [routing for routing in kept if routing is not None]


class Drawn(torch.autograd.Function):
    """The gates of drawn experts: forward their share times ``factor``, backward the gradient of the softmax itself."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, shares: Tensor, at: Tensor, factor: Tensor) -> Tensor:
        gate = shares.gather(-1, at)
        ctx.save_for_backward(shares, at, gate)
        return gate * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        shares, at, gate = ctx.saved_tensors
        gradient = gradient * gate
        return (-gradient * shares).scatter_add(-1, at, gradient), None, None, None
