"""``spmm.c`` behind numpy arrays."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.kernels.spmm.packing import Packed
from sparselab.native import Unavailable, load

if TYPE_CHECKING:
    import numpy as np

MOST_VECTORS = 8  # MOST in spmm.c
OPEN = (float("-inf"), float("inf"))


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel. Raises :class:`~sparselab.native.Unavailable`."""
    found = load(Path(__file__).with_name("spmm.c"), ("-ffp-contract=fast",))
    try:
        found.spmm.argtypes = [*[c_void_p] * 3, c_int64, c_int64, c_int, c_float, c_float, c_int, c_void_p, c_void_p]
        found.spmm.restype = None
    except AttributeError:
        raise Unavailable("what was compiled is not whole") from None
    return found


def sizes(block: int) -> list[int]:
    """How many vectors a chunk of pixels may have, so that its sums fit into registers."""
    most = library().sums_in_registers()
    return [vectors for vectors in range(1, MOST_VECTORS + 1) if vectors * block <= most]


class Multiply:
    """``y = clamp(W x + b, low, high)`` on planes: x (inputs, pixels), y (outputs, pixels), float32 and contiguous.

    vectors: SIMD vectors of pixels in a chunk, at most; ValueError where its sums would not fit into registers
    (:func:`sizes`). Raises :class:`~sparselab.native.Unavailable` without a compiler.
    """

    def __init__(self, packed: Packed, pixels: int, clamp: tuple[float, float] = OPEN, vectors: int = 4):
        if vectors not in sizes(packed.block):
            raise ValueError(f"chunks of {vectors} vectors do not fit blocks of {packed.block}")
        self.packed, self.pixels, self.clamp, self.vectors = packed, pixels, clamp, vectors
        self.spmm = library().spmm
        self.steps = packed.steps * (4 * pixels)  # bytes, so that the loop only adds

    def __call__(self, x: np.ndarray, y: np.ndarray) -> None:
        for array, rows in ((x, self.packed.shape[1]), (y, self.packed.shape[0])):
            if array.shape != (rows, self.pixels) or array.dtype != "float32" or not array.flags.c_contiguous:
                raise ValueError(f"{rows} planes of {self.pixels} contiguous float32 are needed")
        self.at(x.ctypes.data, y.ctypes.data)

    def at(self, x: int, y: int) -> None:
        """The same on addresses, for which the caller answers."""
        packed = self.packed
        self.spmm(
            packed.counts.ctypes.data, self.steps.ctypes.data, packed.values.ctypes.data, len(packed.counts),
            self.pixels, packed.block, *self.clamp, self.vectors, x + 4 * packed.first * self.pixels, y,
        )  # fmt: skip
