"""Designs that are drawn: X = Z M, with independent standard normal Z and a fixed mixing matrix M."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np


def iid(d: int, decay: float, common: float) -> np.ndarray:
    """The identity: independent columns."""
    return np.eye(d)


def walk(d: int, decay: float, common: float) -> np.ndarray:
    """Cumulative sums: column j is the sum of j + 1 independent ones."""
    return np.triu(np.ones((d, d)))


def factor(d: int, decay: float, common: float) -> np.ndarray:
    """``common`` times one source that all columns share, plus each column's own: (d + 1, d)."""
    return np.vstack([np.full((1, d), common), np.eye(d)])


def tree(d: int, decay: float, common: float) -> np.ndarray:
    """A binary tree in the order of a heap: column j adds to its parent (j - 1) // 2 a source of scale decay^(-level / 2)."""
    M = np.zeros((d, d))
    for j in range(d):
        if j:
            M[:, j] = M[:, (j - 1) // 2]
        M[j, j] = decay ** (-((j + 1).bit_length() - 1) / 2)
    return M


MIXING: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "iid": iid,
    "walk": walk,
    "factor": factor,
    "tree": tree,
}


@lru_cache(maxsize=8)
def mixing(design: str, d: int, decay: float, common: float) -> np.ndarray:
    """M, (sources, d), of a design that is drawn; nobody may change it."""
    M = MIXING[design](d, decay, common)
    M.setflags(write=False)
    return M


@lru_cache(maxsize=64)
def condition(design: str, d: int, decay: float, common: float) -> float:
    """Condition number of the covariance M^T M of a row."""
    values = np.linalg.svd(mixing(design, d, decay, common), compute_uv=False)
    return float((values[0] / values[-1]) ** 2)
