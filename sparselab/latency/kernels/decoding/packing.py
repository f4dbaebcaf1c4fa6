"""Matrices as the kernels want them: padded rows, padded columns, or bits and the values that are not zero."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np

SIXTEEN = 16
ROOM = 64  # values that may be read behind the last one


def padded(n: int) -> int:
    """``n`` rounded up to sixteen."""
    return -(-n // SIXTEEN) * SIXTEEN


def to_half(values: np.ndarray) -> np.ndarray:
    """Round to bfloat16, to the nearest, ties to even.

    Args:
        values: float32, of any shape

    Returns:
        Uint16, of the same shape.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_half(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16.

    Args:
        bits: uint16, of any shape

    Returns:
        Float32, of the same shape.
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def in_large_pages(array: np.ndarray) -> np.ndarray:
    """A copy of an array, of the same shape, in memory of its own, in large pages where the system gives them."""
    if array.nbytes < 1 << 20:
        place = np.empty(array.nbytes + 64, np.uint8)
        start = -place.ctypes.data % 64
        kept = place[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        kept[...] = array
        return kept
    memory = mmap.mmap(-1, array.nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    kept = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    kept[...] = array
    return kept


@dataclass
class Packed:
    """A matrix (outputs, inputs) in a form of the kernels.

    form: ``dots`` (padded outputs, stride), ``columns`` (inputs, stride: padded outputs) or ``coded`` (a run of values).
    values: float32, or uint16 for bfloat16. bits: (padded outputs, stride / 16) uint16 and starts: (padded outputs,) int64 of
    coded weights, else None. weight_bytes: what reading all of it costs.
    """

    form: str
    outputs: int
    inputs: int
    stride: int
    values: np.ndarray
    bits: np.ndarray | None = None
    starts: np.ndarray | None = None
    weight_bytes: int = 0

    @property
    def half(self) -> bool:
        return self.values.dtype == np.uint16


def dots(weight: np.ndarray, half: bool) -> Packed:
    """Pack a matrix for rows times x.

    Args:
        weight: (outputs, inputs) float32
        half: whether values are kept as bfloat16

    Returns:
        The packed matrix.
    """
    outputs, inputs = weight.shape
    whole = _enlarged(weight, padded(outputs), padded(inputs))
    values = in_large_pages(to_half(whole) if half else whole)
    return Packed("dots", outputs, inputs, padded(inputs), values, weight_bytes=weight.size * values.itemsize)


def columns(weight: np.ndarray, half: bool) -> Packed:
    """Pack a matrix for inputs that may be skipped: all weights of an input stand together.

    Args:
        weight: (outputs, inputs) float32
        half: whether values are kept as bfloat16

    Returns:
        The packed matrix.
    """
    outputs, inputs = weight.shape
    whole = _enlarged(weight.T, inputs, padded(outputs))
    values = in_large_pages(to_half(whole) if half else whole)
    return Packed("columns", outputs, inputs, padded(outputs), values, weight_bytes=weight.size * values.itemsize)


def coded(weight: np.ndarray, half: bool) -> Packed:
    """Pack a matrix as one bit for each weight and the values that are not zero.

    Args:
        weight: (outputs, inputs) float32
        half: whether values are kept as bfloat16

    Returns:
        The packed matrix.
    """
    outputs, inputs = weight.shape
    whole = _enlarged(weight, padded(outputs), padded(inputs))
    kept = whole != 0
    bits = in_large_pages(np.packbits(kept.ravel(), bitorder="little").view(np.uint16))
    counts = kept.sum(1)
    starts = (np.cumsum(counts) - counts).astype(np.int64)
    run = np.concatenate([whole[kept], np.zeros(ROOM, np.float32)])
    values = in_large_pages(to_half(run) if half else run)
    bits = bits.reshape(padded(outputs), -1)
    cost = int(counts.sum()) * values.itemsize + -(-weight.size // 8)
    return Packed("coded", outputs, inputs, padded(inputs), values, bits, starts, cost)


PACK = {"dots": dots, "columns": columns, "coded": coded}


def _enlarged(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    whole = np.zeros((rows, columns), np.float32)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    return whole
