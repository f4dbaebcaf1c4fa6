"""From scores to the entries that are kept: exactly so many of each token, or those above a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Gate = Callable[[Tensor], Tensor]
"""Scores (..., inputs), at least 0, to a bool mask of that shape: True is kept."""


@runtime_checkable
class Remembering(Protocol):
    """A gate that keeps what it found in a text's dense tokens for those that follow."""

    def see(self, x: Tensor) -> None:
        """Look at what was read densely before the tokens that the gate is asked about.

        Args:
            x: (n, t, inputs)
        """

    def __call__(self, scores: Tensor) -> Tensor: ...


ROUNDING = 1e-9  # 1 - 0.9 is a hair below 0.1, and ten inputs keep one entry, not none


def kept_of(inputs: int, level: float) -> int:
    """K = int(n (1 - s)) entries of ``inputs`` that sparsity ``level`` keeps (arXiv 2505.19427)."""
    return int(inputs * (1 - level) + ROUNDING)


def topk(level: float) -> Gate:
    """Keeps the :func:`kept_of` largest scores of every token, of equal ones the first."""
    return lambda scores: largest(scores, kept_of(scores.shape[-1], level))


def largest(scores: Tensor, count: int) -> Tensor:
    """Mark so many of the largest scores of every row, of equal ones the first.

    Args:
        scores: (..., inputs)
        count: how many, at most ``inputs``

    Returns:
        (..., inputs) bool.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    least = scores.topk(count, dim=-1, sorted=True).values[..., -1:]
    above, ties = scores > least, scores == least
    return above | (ties & (ties.cumsum(-1) <= count - above.sum(-1, keepdim=True)))


def threshold(value: float | Tensor) -> Gate:
    """Keeps scores above ``value``: one, or (inputs,) one for each entry."""
    return lambda scores: scores > value


def not_below(value: float | Tensor) -> Gate:
    """Keeps scores of at least ``value`` that are not zero: a neuron without output is not active, whatever the threshold."""
    return lambda scores: (scores >= value) & (scores > 0)


def topk_of_all(level: float) -> Gate:
    """Drops the int(level n) smallest of all n scores of a pass, its tokens together (arXiv 2411.02335, released code)."""

    def gate(scores: Tensor) -> Tensor:
        flat = scores.flatten()
        keep = torch.ones_like(flat, dtype=torch.bool)
        keep[flat.topk(int(flat.numel() * level + ROUNDING), largest=False).indices] = False
        return keep.view_as(scores)

    return gate


def quantile(scores: Tensor, level: float, most: int = 1 << 22) -> float:
    """The ``level`` quantile of all scores: at least that share of them is not above it.

    Of many, ``most`` evenly spaced ones are looked at.
    """
    flat = scores.flatten()
    flat = flat[:: -(-flat.numel() // most)]
    rank = round(level * flat.numel())
    return float(flat.kthvalue(rank).values) if rank else -1.0
