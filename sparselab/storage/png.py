"""Grey pictures as PNG files, with the same bytes on every machine: a compressor's may differ, so nothing is compressed."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCK = 65_535  # most bytes of a stored block


def grey(pixels: np.ndarray) -> bytes:
    """Encode a grey picture.

    Args:
        pixels: (height, width) uint8, 0 is black

    Returns:
        The bytes of a PNG file.
    """
    height, width = pixels.shape
    rows = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", _stored(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """``data`` as a zlib stream of stored blocks."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)] or [b""]
    out = [b"\x78\x01"]
    for number, block in enumerate(blocks):
        out.append(struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(out) + struct.pack(">I", zlib.adler32(data))
