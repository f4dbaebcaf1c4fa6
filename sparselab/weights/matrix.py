"""A weight as a matrix (outputs, inputs), whatever way it is stored [no torch of its own]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.weights.patterns.matrix import flattened, folded

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot


def as_matrix(slot: Slot, tensor: Tensor) -> Tensor:
    """(outputs, inputs) of a tensor of the slot's shape; a convolution's inputs are (in, *kernel), flattened.

    The outputs of groups, and of experts, follow each other.
    """
    return flattened(slot.layer.kind, tensor)


def stored(slot: Slot, matrix: Tensor) -> Tensor:
    """Fold a matrix as the weight is stored.

    Args:
        slot: the layer
        matrix: (outputs, inputs)

    Returns:
        (*weight).
    """
    return folded(slot.layer.kind, matrix, tuple(slot.mask.shape)).contiguous()


def by_input_norms(slot: Slot, moments: Tensor) -> Tensor:
    """|W_ij| times the norm of input j (arXiv 2306.11695, eq. 1), the slot's shape.

    moments: mean of x x^T of what the layer reads, as :meth:`~sparselab.weights.slot.UpdateContext.inputs` has it.
    """
    norms = moments.diagonal(dim1=-2, dim2=-1).sqrt()
    size = by_group(slot, as_matrix(slot, slot.dense)).float().abs()
    return stored(slot, (size * norms.reshape(-1, 1, norms.shape[-1])).flatten(0, 1))


def by_group(slot: Slot, matrix: Tensor) -> Tensor:
    """(groups, outputs of a group, inputs) of a matrix (outputs, inputs): who reads the same inputs lies together."""
    return matrix.reshape(slot.layer.groups, -1, matrix.shape[-1])
