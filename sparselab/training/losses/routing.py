"""Losses of how tokens go through mixtures of experts: evenly, with small gates, or with few experts each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.data_types import NextTokens, Tokens
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.mixture import Routing
    from sparselab.training.losses.context import StepContext

GUARD = 1e-5
"""Keeps logarithms and quotients of 0 finite (thunlp/BlockFFN, blockffn.py)."""


class RoutingLoss(ExtraLoss):
    """Base: the mean over a network's mixtures of a loss of each (:meth:`of`)."""

    needs_pair = (Tokens, NextTokens)
    needs_given = "routing"

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        """The loss of one mixture.

        Args:
            routing: of windows of text, each part (n, t, …)
            present: (n, t) bool, False where a token is padding; None: none is

        Returns:
            () float32.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        import torch

        from sparselab.inputs.models.mixture import routings

        present = context.present(batch)
        return torch.stack([self.of(routing, present) for routing in routings(context.network)]).mean()


def tokens(values: Tensor, present: Tensor | None) -> Tensor:
    """The tokens that are there, one after another.

    Args:
        values: (n, t, width)
        present: (n, t) bool; None: all are

    Returns:
        (tokens, width).
    """
    return values.flatten(0, 1) if present is None else values[present]


@LOSSES.register("router_balance")
class RouterBalance(RoutingLoss):
    """``N sum_e f_e P_e`` of N experts that are scored: the Switch Transformer's load balance (arXiv 2101.03961, equation 4).

    f_e is expert e's part of all that tokens use, P_e its mean share. 1 where all experts are used alike.
    """

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        shares = tokens(routing.shares, present)
        experts = shares.shape[-1]
        load = (tokens(routing.gates, present)[:, -experts:] != 0).float().sum(0)
        total: Tensor = experts * (shares.mean(0) * load / (load.sum() + GUARD)).sum()
        return total


@LOSSES.register("router_l1")
class RouterL1(RoutingLoss):
    """Sum of a token's gates, without their signs, the mean over tokens (arXiv 2507.08771, table 5)."""

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        return tokens(routing.gates, present).abs().sum(-1).mean()


@LOSSES.register("router_entropy")
class RouterEntropy(RoutingLoss):
    """Entropy of a token's shares, ``-sum p ln(p + 1e-5)``, the mean over tokens (arXiv 2507.08771, table 5)."""

    def of(self, routing: Routing, present: Tensor | None) -> Tensor:
        shares = tokens(routing.shares, present)
        return -(shares * (shares + GUARD).log()).sum(-1).mean()
