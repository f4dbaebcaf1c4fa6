"""A tensor of a kind of layer as a matrix (outputs, inputs), and back [no torch of its own]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def flattened(kind: str, tensor: Tensor) -> Tensor:
    """Lay a weight out as a matrix.

    Args:
        kind: of weight, as in :class:`~sparselab.weights.patterns.pattern.Pattern`
        tensor: (*weight), of any dtype

    Returns:
        (outputs, inputs).
    """
    if kind in ("experts", "experts1d"):
        return (tensor.transpose(1, 2) if kind == "experts1d" else tensor).flatten(0, 1)
    return tensor.t() if kind == "conv1d" else tensor.flatten(1)


def folded(kind: str, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A matrix (outputs, inputs) as a weight of this kind and ``shape`` is stored."""
    if kind == "experts1d":
        return matrix.reshape(shape[0], shape[2], shape[1]).transpose(1, 2)
    return (matrix.t() if kind == "conv1d" else matrix).reshape(shape)
