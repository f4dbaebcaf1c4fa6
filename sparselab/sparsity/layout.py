"""How a pattern reads the stored shape of a weight. Pure arithmetic on shapes."""

from __future__ import annotations

from math import prod

from sparselab.spec.sparsity import Sparsity

AXES = {"in": "inputs", "out": "outputs", "kernel": "weights per output"}
"""The axes along which N:M groups may run, and what lies along them."""


EXPERTS = ("experts", "experts1d")
"""Kinds of layer that hold several matrices in one tensor, along its first dimension."""


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


def n_of_m(sparsity: Sparsity) -> tuple[int, int]:
    """(N, M) of an N:M sparsity."""
    assert sparsity.n is not None and sparsity.m is not None
    return sparsity.n, sparsity.m


def matrix(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """A weight as (outputs, inputs); a convolution's inputs are its filter as stored, flattened (in, *kernel). The
    outputs of experts follow each other."""
    if kind in EXPERTS:
        outputs, inputs = shape[1:] if kind == "experts" else shape[:0:-1]
        return shape[0] * outputs, inputs
    rows, columns = shape[0], prod(shape[1:])
    return (columns, rows) if kind == "conv1d" else (rows, columns)


def tile(sparsity: Sparsity, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of the rectangle of :func:`matrix` that the pattern keeps or drops as one."""
    if sparsity.kind == "block":
        assert sparsity.block is not None
        return sparsity.block
    if sparsity.kind == "channel":
        return 1, matrix(kind, shape)[1]
    if sparsity.kind == "in_channel":
        outputs = matrix(kind, shape)[0]
        return (outputs // shape[0], 1) if kind in EXPERTS else (outputs, prod(shape[2:]))
    return 1, 1
