"""A weight as a matrix (outputs, inputs), whatever way it is stored. [no torch of its own]"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.sparsity.slots import Slot


def as_matrix(slot: Slot, tensor: Tensor) -> Tensor:
    """(outputs, inputs) of a tensor of the slot's shape; a convolution's inputs are (in, *kernel), flattened.

    The outputs of groups, and of experts, follow each other.
    """
    return flattened(slot.layer.kind, tensor)


def stored(slot: Slot, matrix: Tensor) -> Tensor:
    """The other way round."""
    return folded(slot.layer.kind, matrix, tuple(slot.mask.shape)).contiguous()


def by_group(slot: Slot, matrix: Tensor) -> Tensor:
    """(groups, outputs of a group, inputs) of a matrix (outputs, inputs): who reads the same inputs lies together."""
    return matrix.reshape(slot.layer.groups, -1, matrix.shape[-1])


def flattened(kind: str, tensor: Tensor) -> Tensor:
    """A weight of this kind as (outputs, inputs)."""
    if kind in ("experts", "experts1d"):
        return (tensor.transpose(1, 2) if kind == "experts1d" else tensor).flatten(0, 1)
    return tensor.t() if kind == "conv1d" else tensor.flatten(1)


def folded(kind: str, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A matrix (outputs, inputs) as a weight of this kind and ``shape`` is stored."""
    if kind == "experts1d":
        return matrix.reshape(shape[0], shape[2], shape[1]).transpose(1, 2)
    return (matrix.t() if kind == "conv1d" else matrix).reshape(shape)
