"""Rules by which dynamic sparse training lets connections die and grow: functions of one tensor.

As in muratonuryildirim/CL-with-DST ``core.py`` (``Masking``), whose counts are those of T. Dettmers' sparse_learning. Growth is
exact in number; there, random growth is so on average.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from sparselab.weights.select import largest

EPS = 1e-8  # beside the root of Adam's second moment


def magnitude_death(weight: Tensor, mask: Tensor, remove: int) -> Tensor:
    """Keep what is larger than the smallest ``remove`` kept weights; those that tie with the last of them die with it.

    Args:
        weight: (*weight), zero outside of ``mask``
        mask: (*weight) bool, the connections
        remove: how many die, at least

    Returns:
        (*weight) bool, the survivors.
    """
    sizes = weight.abs().flatten()
    place = sizes.numel() - int(mask.sum()) + remove
    return weight.abs() > sizes.kthvalue(place).values if place else mask


def signed_death(weight: Tensor, mask: Tensor, remove: int) -> Tensor:
    """SET (arXiv 1707.04780): half of the dying are the smallest positive weights, half the negative ones nearest to zero.

    In the released code the negative half keeps the few most negative weights alone, since it sorts from below.

    Args:
        weight: (*weight), zero outside of ``mask``
        mask: (*weight) bool, the connections
        remove: how many die, about

    Returns:
        (*weight) bool, the survivors; a connection whose weight is zero is none.
    """
    alive = torch.zeros_like(mask)
    for sign in (1, -1):
        side = sign * weight
        there = side[side > 0]
        if len(there):
            last = there.sort().values[min(ceil(remove / 2), len(there)) - 1]
            alive |= side > last
    return alive & mask


def taylor_death(weight: Tensor, grad: Tensor, mask: Tensor, remove: int) -> Tensor:
    """Keep the largest (weight x gradient)², a first-order guess of what each is worth to the loss.

    Args:
        weight: (*weight), zero outside of ``mask``
        grad: (*weight)
        mask: (*weight) bool, the connections
        remove: how many die

    Returns:
        (*weight) bool, the survivors, exactly ``remove`` fewer.
    """
    score = (weight * grad).square().masked_fill(~mask, -1.0).flatten()
    return largest(score, int(mask.sum()) - remove).view_as(mask)


def grown(score: Tensor, alive: Tensor, count: int) -> Tensor:
    """New connections: where there are none, the ``count`` of largest score; of equal ones the lowest index.

    Args:
        score: (*weight) finite, at least 0
        alive: (*weight) bool, the connections
        count: how many grow

    Returns:
        (*weight) bool, disjoint from ``alive``.
    """
    count = min(count, int((~alive).sum()))
    return largest(score.float().masked_fill(alive, -1.0).flatten(), count).view_as(alive)


def unfired_first(chance: Tensor, fired: Tensor) -> Tensor:
    """Scores for growth at random that takes connections that never were before all others.

    Args:
        chance: (*weight) in [0, 1), random
        fired: (*weight) bool, connections that have been

    Returns:
        (*weight) float.
    """
    return chance + (~fired).to(chance.dtype)


def adam_momentum(first: Tensor, second: Tensor) -> Tensor:
    """Score of growth by momentum: size of Adam's first moment over the root of its second.

    Args:
        first: (*weight), ``exp_avg``
        second: (*weight), ``exp_avg_sq``

    Returns:
        (*weight) float, at least 0.
    """
    return (first / (second.sqrt() + EPS)).abs()
