"""Pictures in files: which ones are read, and how their values become eight bits [no torch]."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

READ = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
UNREAD = (".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".npy")  # pictures of other kinds
FULL = 65535  # white in sixteen bits


def undecodable() -> tuple[type[Exception], ...]:
    """Return the exceptions of Pillow for a file that is damaged, too large or of an unknown kind."""
    from PIL.Image import DecompressionBombError

    return (OSError, SyntaxError, ValueError, TypeError, EOFError, OverflowError, struct.error, zlib.error, MemoryError,
            DecompressionBombError)  # fmt: skip


def eight_bits(picture: Image, mode: str) -> Image:
    """``picture`` in ``mode`` (RGB or L).

    Sixteen bits a value become eight (value // 256), where Pillow would cut them off at 255 and make nearly everything white.
    Raises ValueError for values that no eight bits stand for.
    """
    from PIL.Image import fromarray

    if not (picture.mode.startswith("I") or picture.mode == "F"):
        return picture.convert(mode)
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > FULL:
        raise ValueError(f"its values from {values.min():g} to {values.max():g} are no pixels of 8 or 16 bits")
    return fromarray((values.astype(np.uint16) // 256).astype(np.uint8)).convert(mode)
