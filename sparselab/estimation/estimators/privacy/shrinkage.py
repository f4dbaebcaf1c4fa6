"""From noisy moments to sparse parameters."""

from __future__ import annotations

import numpy as np


def soft(values: np.ndarray, level: float) -> np.ndarray:
    """Each value moved towards 0 by ``level``, and 0 where that is not as far."""
    return np.sign(values) * np.maximum(np.abs(values) - level, 0.0)


def keep_largest(values: np.ndarray, count: int) -> np.ndarray:
    """``values`` with all but the ``count`` largest magnitudes set to 0; of equal ones the first stay."""
    kept = np.zeros_like(values)
    places = np.argsort(-np.abs(values), kind="stable")[:count]
    kept[places] = values[places]
    return kept


def into_ball(values: np.ndarray, radius: float) -> np.ndarray:
    """The nearest point of the l2 ball of ``radius``."""
    length = float(np.linalg.norm(values))
    return values if length <= radius else values * (radius / length)


def lifted(matrix: np.ndarray, floor: float) -> tuple[np.ndarray, bool]:
    """A symmetric matrix with eigenvalues below ``floor`` raised to it, and whether any was below."""
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
