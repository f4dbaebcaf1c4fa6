"""A weight as the N:M groups that lie in it [no torch of its own]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.weights.patterns.layout import grouped

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.sparsity import Placed


def in_groups(on: Placed, tensor: Tensor, m: int) -> Tensor:
    """(groups, M, after): every group of M along dimension 1, in the stored order of the weight.

    Args:
        on: the kind of weight and its axis
        tensor: (*weight), of any dtype
        m: size of a group; it divides the axis

    Returns:
        A view or copy (groups, M, after).
    """
    before, length, after = grouped(on.kind, tuple(tensor.shape), on.axis)
    return tensor.reshape(before * (length // m), m, after)


def spacing(on: Placed, tensor: Tensor) -> int | None:
    """Return how far apart the members of a group lie in memory; None where that is not one number.

    Args:
        on: the kind of weight and its axis
        tensor: (*weight), of any dtype
    """
    after = grouped(on.kind, tuple(tensor.shape), on.axis)[2]
    if tensor.is_contiguous() or on.axis == "out":
        return after
    return None if on.axis == "kernel" else 1  # channels_last: the channels lie side by side
