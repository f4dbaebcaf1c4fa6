"""A dictionary as a picture."""

from __future__ import annotations

from math import ceil, isqrt

import numpy as np

SCALE = 3  # pixels of the picture for one of a field
EDGE = 255


def mosaic(fields: np.ndarray) -> np.ndarray | None:
    """Grey values 0 to 255, uint8, of ``fields`` (n, side * side) as tiles in rows; None where they are no squares.

    Each field has its own scale: grey is 0, and its largest entry (in size) is black or white.
    """
    side = isqrt(fields.shape[1])
    if side * side != fields.shape[1]:
        return None
    columns = ceil(np.sqrt(len(fields)))
    rows = ceil(len(fields) / columns)
    largest = np.abs(fields).max(axis=1, keepdims=True)
    grey = np.rint(127.5 + 127.5 * fields / np.where(largest > 0, largest, 1)).astype(np.uint8)
    page = np.full((rows * (side + 1) + 1, columns * (side + 1) + 1), EDGE, np.uint8)
    for number, tile in enumerate(grey.reshape(-1, side, side)):
        row, column = divmod(number, columns)
        page[row * (side + 1) + 1 : (row + 1) * (side + 1), column * (side + 1) + 1 : (column + 1) * (side + 1)] = tile
    return page.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
