"""``decode.c`` behind numpy arrays."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from sparselab.core.native_build import Unavailable, load
from sparselab.latency.kernels.decoding.packing import Packed, padded, to_half

HERE = Path(__file__).parent
OTHERS = (HERE / "decode.h", HERE / "products.h", HERE / "products.inc", HERE.parent / "spmm" / "vectors.h")
FLAGS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
ISAS = {"auto": (), "avx512": (), "avx2": ("-mno-avx512f",)}
FORMS = {"dots": 0, "columns": 1, "coded": 2}
LANES = {"avx512": 16, "avx2": 8}


class Matrix(Structure):
    """``matrix`` of decode.h."""

    _fields_ = (
        *((name, c_int64) for name in ("outputs", "inputs", "stride")),
        *((name, c_void_p) for name in ("values", "bits", "starts", "bias")),
        ("form", c_int32), ("half", c_int32),
    )  # fmt: skip


class Layer(Structure):
    """``layer`` of decode.h."""

    _fields_ = (
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, c_void_p * 2) for name in ("norm", "shift", "after")),
        *((name, c_void_p) for name in ("q_norm", "k_norm", "gates", "keys", "kept")),
        ("limit", c_float * 4), ("window", c_int32), ("rotated", c_int32),
    )  # fmt: skip


class Whole(Structure):
    """``network`` of decode.h."""

    _fields_ = (
        *((n, c_int64) for n in ("width", "heads", "groups", "dim", "inner", "vocabulary", "layers", "longest", "rotary")),
        *((n, c_int32) for n in ("norm", "act", "parallel", "half", "threads", "pad")),
        *((n, c_float) for n in ("eps", "scale", "cap", "last_cap", "embedded")),
        *((n, c_void_p) for n in ("embedding", "positions", "cosine", "sine", "last", "last_shift")),
        ("head", Matrix), ("layer", POINTER(Layer)),
        *((n, c_void_p) for n in ("scratch", "active", "record")),
    )  # fmt: skip


@functools.cache
def library(isa: str = "auto") -> ctypes.CDLL:
    """The compiled kernels. Raises :class:`~sparselab.core.native_build.Unavailable`."""
    found = load(HERE / "decode.c", (*FLAGS, *ISAS[isa]), OTHERS)
    try:
        found.size_of.argtypes, found.size_of.restype = [c_int], c_int64
        sizes = [ctypes.sizeof(kind) for kind in (Matrix, Layer, Whole)]
        if [found.size_of(number) for number in range(3)] != sizes:
            raise Unavailable("this compiler lays out structures in another way")
        for name in ("scratch_floats", "widest_of"):
            getattr(found, name).argtypes, getattr(found, name).restype = [POINTER(Whole)], c_int64
        found.decode_token.argtypes, found.decode_token.restype = [POINTER(Whole), c_int64, c_int64, c_void_p], None
        run: list[Any] = [c_float, c_void_p, c_void_p, c_void_p, c_int]
        found.product.argtypes, found.product.restype = [POINTER(Matrix), c_void_p, *run], c_int64
        found.replay.argtypes, found.replay.restype = [POINTER(Whole)], None
        found.sum_of.argtypes, found.sum_of.restype = [c_void_p, c_int64, c_int], c_float
    except AttributeError:
        raise Unavailable("what was compiled is not whole") from None
    if isa in LANES and found.lanes_of_a_vector() != LANES[isa]:
        raise Unavailable(f"this processor has no {isa}")
    return found


def matrix(packed: Packed, bias: np.ndarray | None = None) -> Matrix:
    """The C structure of a packed matrix; ``bias`` is of padded outputs. The caller keeps the arrays alive."""
    at = [None if one is None else one.ctypes.data for one in (packed.bits, packed.starts, bias)]
    return Matrix(
        padded(packed.outputs), packed.inputs, packed.stride, packed.values.ctypes.data, *at, FORMS[packed.form],
        int(packed.half),
    )  # fmt: skip


class Product:
    """One matrix with one vector: what tests and timings of the products alone call.

    threads: 1 or more. isa: ``auto``, ``avx512`` or ``avx2``.
    """

    def __init__(self, packed: Packed, threads: int = 1, isa: str = "auto"):
        self.packed, self.threads, self.call = packed, threads, library(isa).product
        self.matrix = matrix(packed)
        n = max(padded(packed.inputs), padded(packed.outputs)) + 16
        self.x, self.y, self.values = (np.zeros(n, np.float32) for _ in range(3))
        self.list = np.zeros(n, np.int32)

    def __call__(self, x: np.ndarray, limit: float = -1.0) -> np.ndarray:
        """The product.

        Args:
            x: (inputs,) float32
            limit: entries of x whose absolute value is not larger are skipped, where the form can

        Returns:
            (outputs,) float32.
        """
        self.x[: self.packed.inputs] = x
        at = (one.ctypes.data for one in (self.y, self.list, self.values))
        self.call(byref(self.matrix), self.x.ctypes.data, limit, *at, self.threads)
        return self.y[: self.packed.outputs].copy()


def halved(values: np.ndarray, half: bool) -> np.ndarray:
    """Return values as they are kept.

    Args:
        values: float32, of any shape
        half: whether they are kept as bfloat16

    Returns:
        Float32, or bfloat16 as uint16, of the same shape.
    """
    return to_half(values) if half else np.ascontiguousarray(values, np.float32)
