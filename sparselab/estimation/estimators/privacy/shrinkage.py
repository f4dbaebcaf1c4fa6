"""From noisy moments to sparse parameters."""

from __future__ import annotations

import numpy as np


def soft(values: np.ndarray, level: float) -> np.ndarray:
    """Move each value towards 0 by ``level``; 0 where it is not as far.

    Args:
        values: any shape
        level: at least 0, in units of a value

    Returns:
        The shape of ``values``.
    """
    return np.sign(values) * np.maximum(np.abs(values) - level, 0.0)


def keep_largest(values: np.ndarray, count: int) -> np.ndarray:
    """Set all but the largest magnitudes to 0; of equal ones the first stay.

    Args:
        values: (d,)
        count: how many stay

    Returns:
        (d,), a copy.
    """
    kept = np.zeros_like(values)
    places = np.argsort(-np.abs(values), kind="stable")[:count]
    kept[places] = values[places]
    return kept


def into_ball(values: np.ndarray, radius: float) -> np.ndarray:
    """Return the nearest point of the l2 ball.

    Args:
        values: (d,)
        radius: above 0

    Returns:
        (d,).
    """
    length = float(np.linalg.norm(values))
    return values if length <= radius else values * (radius / length)


def lifted(matrix: np.ndarray, floor: float) -> tuple[np.ndarray, bool]:
    """Raise eigenvalues below ``floor`` to it.

    Args:
        matrix: (d, d), symmetric
        floor: least eigenvalue

    Returns:
        ((d, d), whether any eigenvalue was below).
    """
    values, vectors = np.linalg.eigh(matrix)
    if values[0] >= floor:
        return matrix, False
    return (vectors * np.maximum(values, floor)) @ vectors.T, True


def mirrored(upper: np.ndarray, d: int) -> np.ndarray:
    """Symmetric (…, d, d) matrices from their upper triangles, (…, d (d + 1) / 2), row by row."""
    full = np.zeros((*upper.shape[:-1], d, d))
    rows, columns = np.triu_indices(d)
    full[..., rows, columns] = upper
    full[..., columns, rows] = upper
    return full
