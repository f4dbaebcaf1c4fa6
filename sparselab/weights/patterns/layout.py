"""How a pattern reads the stored shape of a weight. Pure arithmetic on shapes."""

from __future__ import annotations

from math import prod

from sparselab.core.model_spec import EXPERTS

AXES = {"in": "inputs", "out": "outputs", "kernel": "weights per output"}
"""The axes along which N:M groups may run, and what lies along them."""


def grouped(kind: str, shape: tuple[int, ...], axis: str) -> tuple[int, int, int]:
    """A weight's shape as (before, along the axis, after): N:M groups are consecutive runs of the middle dimension.

    ``in``:     input channels; for a convolution (out, in, *kernel) the groups of each kernel position are separate.
    ``out``:    output channels, likewise.
    ``kernel``: a convolution's whole filter, flattened (in, *kernel).

    Raises ValueError for an axis that the layer does not have.
    """
    rows, columns, kernel = shape[0], shape[1], prod(shape[2:])
    if axis not in AXES:
        raise ValueError(f"axis {axis!r} is none of {', '.join(AXES)}")
    if axis == "kernel":
        if len(shape) < 3 or kind in EXPERTS:
            raise ValueError(f"a weight of shape {shape} has no kernel axis")
        return rows, columns * kernel, 1
    if kind in EXPERTS:  # (experts, out, in), or (experts, in, out)
        along_last = (axis == "in") == (kind == "experts")
        return (rows * columns, kernel, 1) if along_last else (rows, columns, kernel)
    if (axis == "in") != (kind == "conv1d"):  # transformers' Conv1D stores (in, out)
        return rows, columns, kernel
    return 1, rows, columns * kernel


def matrix(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """A weight as (outputs, inputs); a convolution's inputs are its filter as stored, flattened (in, *kernel).

    The outputs of experts follow each other.
    """
    if kind in EXPERTS:
        outputs, inputs = shape[1:] if kind == "experts" else shape[:0:-1]
        return shape[0] * outputs, inputs
    rows, columns = shape[0], prod(shape[1:])
    return (columns, rows) if kind == "conv1d" else (rows, columns)
