"""From estimated weights to an acyclic graph."""

from __future__ import annotations

import numpy as np

from sparselab.estimation.problems.graphs.order import is_acyclic


def to_dag(weights: np.ndarray, threshold: float) -> np.ndarray:
    """(d, d) weights without those of at most ``threshold``, and, while a cycle is left, without the smallest edge.

    Of equal weights the first in row order goes first.
    """
    kept = np.where(np.abs(weights) <= threshold, 0.0, weights)
    rows, columns = np.nonzero(kept)
    for edge in np.argsort(np.abs(kept[rows, columns]), kind="stable"):
        if is_acyclic(kept):
            break
        kept[rows[edge], columns[edge]] = 0.0
    return kept
