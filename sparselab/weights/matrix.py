"""A weight as a matrix (outputs, inputs), whatever way it is stored. [no torch of its own]"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot


def as_matrix(slot: Slot, tensor: Tensor) -> Tensor:
    """(outputs, inputs) of a tensor of the slot's shape; a convolution's inputs are (in, *kernel), flattened."""
    return tensor.t() if slot.layer.kind == "conv1d" else tensor.flatten(1)


def stored(slot: Slot, matrix: Tensor) -> Tensor:
    """The other way round."""
    return (matrix.t() if slot.layer.kind == "conv1d" else matrix).reshape(slot.mask.shape).contiguous()
