"""Compile ``kernels.c`` once for this machine; :func:`status` says whether the compiled code is in use."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path

from sparselab.core.native_build import Unavailable, load

LARGEST_GROUP = 256
"""M up to which the kernels solve N:M; the same number is in ``kernels.c``."""

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

SIGNATURES = {
    "groups": [c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int, c_int, c_int, c_int],
    "masked": [c_void_p, c_void_p, c_void_p, c_int64, c_int],
    "add_pruned": [c_void_p, c_void_p, c_void_p, c_float, c_int64, c_int],
    "bracket": [c_void_p, c_int64, c_int32, c_int32, c_int, c_void_p, c_int64, POINTER(c_int64)],
    "histogram": [c_void_p, c_int64, c_uint32, c_int, c_int, c_int, POINTER(c_int64)],
    "above": [c_void_p, c_void_p, c_int64, c_int32, c_int64, c_int, c_int],
}  # fmt: skip


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None."""
    return _load()[0]


def status() -> str:
    """``native``, or ``plain`` with the reason."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    try:
        return _checked(load(SOURCE, FLAGS)), "native"
    except Unavailable as reason:
        return None, f"plain ({reason})"


def _checked(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Types for every function, and one known answer: 2:4 of 3 -3 0 4 keeps, by magnitude, the first and the last."""
    try:
        for name, arguments in SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, c_int if name == "groups" else None
    except AttributeError:
        raise Unavailable("what was compiled is not whole") from None
    scores, mask, out = (c_float * 36)(*[3, -3, 0, 4] * 9), (ctypes.c_uint8 * 36)(), (c_float * 36)()
    bad = loaded.groups(scores, mask, out, 9, 1, 4, 2, 1, 1)
    if bad or list(mask) != [1, 0, 0, 1] * 9 or list(out) != [3, 0, 0, 4] * 9:
        raise Unavailable("what was compiled gives wrong masks")
    return loaded
