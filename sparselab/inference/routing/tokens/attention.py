"""Attention among the tokens that stay in a block, and the attention that each of them gets."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselab.inference.routing.tokens.decider import From


def among(mask: Tensor | None, keep: Tensor, tokens: int) -> Tensor:
    """Hide skipped tokens from all others; each still sees itself, so that no row is empty.

    Args:
        mask: (n or 1, 1 or heads, t, t) bool, True where a query sees a key; None: every key up to the query
        keep: (n or 1, t) bool
        tokens: t

    Returns:
        (n or 1, 1 or heads, t, t) bool.
    """
    itself = torch.eye(tokens, dtype=torch.bool, device=keep.device)
    seen = causal(tokens, keep.device) if mask is None else mask
    return seen & (keep[:, None, None, :] | itself)


def causal(tokens: int, device: torch.device) -> Tensor:
    """Let every query see the keys up to itself.

    Args:
        tokens: t
        device: of what is returned

    Returns:
        (1, 1, t, t) bool.
    """
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()[None, None]


@torch.no_grad()
def received(query: Tensor, key: Tensor, scale: float, mask: Tensor | None, keep: Tensor, how: From) -> Tensor:
    """Return the attention that each token gets, a mean over heads.

    Args:
        query: (n, heads, t, d)
        key: (n, heads of keys, t, d)
        scale: of the scores
        mask: (n or 1, 1 or heads, t, t) bool, as attention uses it; None: every key up to the query
        keep: (n, t) bool, the tokens in the block
        how: ``last`` (from the last token in the block), ``mean`` (over all in it) or ``causal`` (from itself)

    Returns:
        (n, t), 0 for keys that nobody sees.
    """
    n, heads, t, _ = query.shape
    key = key.repeat_interleave(heads // key.shape[1], 1)
    seen = causal(t, query.device) if mask is None else mask
    seen = seen.expand(n, -1, t, t)
    if how == "last":
        last = (keep * torch.arange(t, device=keep.device)).amax(-1)
        rows = torch.arange(n, device=keep.device)
        query, seen = query[rows, :, last][:, :, None], seen[rows, :, last][:, :, None]
    weight = (query.float() @ key.float().transpose(-1, -2) * scale).masked_fill(~seen, -torch.inf).softmax(-1)
    if how == "last":
        return weight[:, :, 0].mean(1)
    if how == "causal":
        return weight.diagonal(dim1=-2, dim2=-1).mean(1)
    counted = keep[:, None, :, None] * weight
    return counted.sum(2).mean(1) / keep.sum(-1, keepdim=True).clamp(min=1)
