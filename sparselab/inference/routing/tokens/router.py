"""The router: a network of two layers that says of a token whether it goes through a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparselab.inference.routing.rule import kept_count
from sparselab.inference.routing.tokens.decider import Choice, Decider, From, Part, largest

if TYPE_CHECKING:
    from sparselab.inference.routing.ftp import FTP


def ranks(scores: Tensor, ahead: bool) -> Tensor:
    """Rank tokens by their scores, the largest first.

    Args:
        scores: (n, t)
        ahead: True: among all tokens; False: each among itself and those before it

    Returns:
        (n, t) float, the number of tokens with a larger score; of equal ones the earlier comes first.
    """
    t = scores.shape[-1]
    later = torch.ones(t, t, dtype=torch.bool, device=scores.device).triu(1)  # [j, i]: i comes after j
    mine, other = scores[..., :, None], scores[..., None, :]
    above = (other > mine) | ((other == mine) & later.T)
    return (above if ahead else above & ~later).sum(-1).to(scores.dtype)


def features(inputs: Sequence[str], hidden: Tensor, scores: Tensor, share: float, ahead: bool) -> Tensor:
    """Build what the router reads of each token.

    Args:
        inputs: ``position`` (j / (t-1)), ``score`` (times t), ``rank`` (over t-1), ``share`` and ``hidden`` (of unit size)
        hidden: (n, t, width)
        scores: (n, t)
        share: s_i of the block
        ahead: True if ranks are among all tokens

    Returns:
        (n, t, numbers) float32.
    """
    n, t, _ = hidden.shape
    span = max(t - 1, 1)
    scores = scores.float()
    place = torch.arange(t, device=hidden.device, dtype=torch.float32)

    def column(name: str) -> Tensor:
        if name == "position":
            return (place / span).expand(n, t)[..., None]
        if name == "score":
            return (scores * t)[..., None]
        if name == "rank":
            return (ranks(scores, ahead) / span)[..., None]
        if name == "share":
            return torch.full((n, t, 1), share, device=hidden.device)
        state = hidden.detach().float()
        return state / state.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)

    return torch.cat([column(name) for name in inputs], -1)


def make_router(inputs: Sequence[str], hidden: int, width: int) -> nn.Sequential:
    """Make a router with weights from torch's global generator.

    Args:
        inputs: what it reads
        hidden: width of the network's hidden state
        width: of its own

    Returns:
        From (n, t, numbers) to (n, t, 2): logits of skipping and of staying.
    """
    numbers = sum(hidden if name == "hidden" else 1 for name in inputs)
    return nn.Sequential(nn.Linear(numbers, width), nn.ReLU(), nn.Linear(width, 2))


class Learned(Decider):
    """The decisions of a router.

    shares: s_i of each block; one with 0 stays as it is, and one with 1 is skipped. reads: whose attention scores tokens.
    exact: True: as many as asked; False: those with p > 0.5. watched: the probabilities of staying, (n, t) by block, of the
    last pass, where somebody learns from them; then gates have gradients.
    """

    def __init__(
        self, rule: FTP, router: nn.Module, shares: Sequence[float], reads: From, exact: bool, watch: bool = False
    ):
        self.options, self.router, self.shares = rule.options, router, list(shares)
        self.reads, self.exact = reads, exact
        self.parts: tuple[Part, ...] = (rule.options.scope,)
        self.watched: dict[int, Tensor] | None = {} if watch else None

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        share, t = self.shares[block], hidden.shape[1]
        if share == 0 or scores is None:
            return None
        if share == 1:
            return Choice(torch.zeros(1, t, dtype=torch.bool, device=hidden.device), self.parts)
        read = features(self.options.inputs, hidden, scores, share, self.reads != "causal")
        stays = self.router(read).softmax(-1)[..., 1]
        keep = largest(stays, kept_count(t, share), self.options.keep_last) if self.exact else stays > 0.5
        if self.options.keep_last:
            keep = keep.clone()
            keep[:, -1] = True
        if self.watched is None:
            return Choice(keep, self.parts)
        self.watched[block] = stays
        return Choice(keep, self.parts, straight_through(keep, stays).to(hidden.dtype))


def straight_through(keep: Tensor, stays: Tensor) -> Tensor:
    """Give a hard decision the gradient of its probability: g = [kept] + p - stopgrad(p).

    Args:
        keep: (n, t) bool
        stays: (n, t) p

    Returns:
        (n, t), 0 or 1.
    """
    return keep.to(stays.dtype) + (stays - stays.detach())
