"""``spmm.c`` and ``conv.c`` behind numpy arrays."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.core.native_build import Unavailable, load
from sparselab.latency.kernels.spmm.packing import Packed, pack

if TYPE_CHECKING:
    import numpy as np

MOST_VECTORS = 8  # MOST in spmm.c
OPEN = (float("-inf"), float("inf"))
TAPS = 9

HERE = Path(__file__).parent
SOURCES = (HERE / "spmm.c", HERE / "conv.c", HERE / "vectors.h")
PLANES = [c_int64] * 6  # height, width, height and width of the output, stride, padding
SIGNATURES = {
    "spmm": [*[c_void_p] * 3, *[c_int64] * 3, c_int, c_float, c_float, c_int, c_void_p, c_void_p],
    "depthwise": [*[c_void_p] * 2, c_int64, *PLANES, c_float, c_float, *[c_void_p] * 3],
    "full": [*[c_void_p] * 3, c_int64, c_int, c_int, c_int64, c_int64, *PLANES, c_float, c_float, *[c_void_p] * 3],
}


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises :class:`~sparselab.core.native_build.Unavailable`."""
    source, *others = SOURCES
    found = load(source, ("-ffp-contract=fast",), tuple(others))
    try:
        for name, arguments in SIGNATURES.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, None
        found.floats_of_a_run.argtypes, found.floats_of_a_run.restype = [c_int64] * 4, c_int64
    except AttributeError:
        raise Unavailable("what was compiled is not whole") from None
    return found


def sizes(block: int) -> list[int]:
    """How many vectors a chunk of pixels may have, so that its sums fit into registers."""
    most = library().sums_in_registers()
    return [vectors for vectors in range(1, MOST_VECTORS + 1) if vectors * block <= most]


def checked(array: np.ndarray, shape: tuple[int, ...]) -> int:
    """The address of ``array``; ValueError where it is not contiguous float32 of this shape."""
    if array.shape != shape or array.dtype != "float32" or not array.flags.c_contiguous:
        raise ValueError(f"contiguous float32 of shape {shape} are needed")
    return array.ctypes.data


class Call:
    """Something that reads planes and writes planes. ``reads`` and ``writes`` are their shapes, float32 and contiguous."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.at(checked(x, self.reads), checked(y, self.writes))

    def at(self, x: int, y: int) -> None:
        """The same on addresses, for which the caller answers."""
        raise NotImplementedError


class Multiply(Call):
    """``y = clamp(W x + b, low, high)`` on planes: x (inputs, pixels), y (outputs, pixels).

    vectors: SIMD vectors of pixels in a chunk, at most; ValueError where its sums would not fit into registers
    (:func:`sizes`). Raises :class:`~sparselab.core.native_build.Unavailable` without a compiler.
    """

    def __init__(self, packed: Packed, pixels: int, clamp: tuple[float, float] = OPEN, vectors: int = 4):
        if vectors not in sizes(packed.block):
            raise ValueError(f"chunks of {vectors} vectors do not fit blocks of {packed.block}")
        self.packed, self.pixels, self.clamp, self.vectors = packed, pixels, clamp, vectors
        self.reads, self.writes = (packed.shape[1], pixels), (packed.shape[0], pixels)
        self.spmm = library().spmm
        self.steps = packed.steps * (4 * pixels)  # bytes, so that the loop only adds

    def at(self, x: int, y: int) -> None:
        packed = self.packed
        self.spmm(
            packed.counts.ctypes.data, self.steps.ctypes.data, packed.values.ctypes.data, len(packed.counts),
            self.pixels, self.pixels, packed.block, *self.clamp, self.vectors, x + 4 * packed.first * self.pixels, y,
        )  # fmt: skip


class Convolve(Call):
    """A 3x3 convolution on planes: x (channels, height, width), y (outputs, height, width of the output).

    pad: 0 or 1 zeros above and to the left; below and to the right as many as ``after``, the size of the output, asks for
    (left out: the same on all sides). ValueError for other strides than 1 and 2, and where nothing would be left.
    """

    def __init__(
        self, outputs: int, channels: int, size: tuple[int, int], stride: int, pad: int,
        clamp: tuple[float, float] = OPEN, after: tuple[int, int] | None = None,
    ):  # fmt: skip
        height, width = after or ((size[0] + 2 * pad - 3) // stride + 1, (size[1] + 2 * pad - 3) // stride + 1)
        if stride not in (1, 2) or pad not in (0, 1) or min(*size, channels, outputs, height, width) < 1:
            raise ValueError(f"stride {stride} and padding {pad} do not fit 3x3 taps on {size[0]} x {size[1]} pixels")
        self.clamp, self.channels = clamp, channels
        self.planes = (*size, height, width, stride, pad)
        self.reads, self.writes = (channels, *size), (outputs, height, width)


class Depthwise(Convolve):
    """Every channel with its own taps: weight (channels, 3, 3), bias (channels,)."""

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, size: tuple[int, int], stride: int = 1, pad: int = 1,
        clamp: tuple[float, float] = OPEN, after: tuple[int, int] | None = None,
    ):  # fmt: skip
        import numpy as np

        channels = weight.shape[0]
        super().__init__(channels, channels, size, stride, pad, clamp, after)
        checked(weight, (channels, 3, 3)), checked(bias, (channels,))
        self.weight, self.bias, self.zeros = weight, bias, np.zeros(size[1], np.float32)
        self.depthwise = library().depthwise

    def at(self, x: int, y: int) -> None:
        self.depthwise(
            self.weight.ctypes.data, self.bias.ctypes.data, self.channels, *self.planes, *self.clamp,
            self.zeros.ctypes.data, x, y,
        )  # fmt: skip


class Full(Convolve):
    """All channels: weight (outputs, channels, 3, 3), bias (outputs,). Its zeros cost nothing either.

    For each row of the output the taps of the rows it reads are planes of the sparse product, ``vectors`` as there.
    """

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, size: tuple[int, int], stride: int = 1, pad: int = 1,
        clamp: tuple[float, float] = OPEN, after: tuple[int, int] | None = None, block: int = 1, vectors: int = 4,
    ):  # fmt: skip
        import numpy as np

        outputs, channels = weight.shape[:2]
        super().__init__(outputs, channels, size, stride, pad, clamp, after)
        if vectors not in sizes(block):
            raise ValueError(f"chunks of {vectors} vectors do not fit blocks of {block}")
        self.vectors, self.packed = vectors, pack(weight.reshape(outputs, channels * TAPS), bias, block)
        run = library().floats_of_a_run(size[1], self.planes[3], stride, pad)
        tap = np.array([0, 1, 2] if stride == 1 else [0, run, 1])
        places = (np.arange(3 * channels)[:, None] * stride * run + tap).ravel()  # of all taps, in floats
        kept = places[(self.packed.first + np.cumsum(self.packed.steps) - self.packed.steps).astype(np.int64)]
        self.first = int(kept[0]) if len(kept) else 0
        self.steps = (4 * np.diff(kept, append=kept[:1])).astype(np.int32)
        self.scratch = np.zeros(3 * channels * stride * run, np.float32)
        self.full = library().full

    def at(self, x: int, y: int) -> None:
        packed = self.packed
        self.full(
            packed.counts.ctypes.data, self.steps.ctypes.data, packed.values.ctypes.data, len(packed.counts),
            packed.block, self.vectors, self.first, self.channels, *self.planes, *self.clamp,
            self.scratch.ctypes.data, x, y,
        )  # fmt: skip
