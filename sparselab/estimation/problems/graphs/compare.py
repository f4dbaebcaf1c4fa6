"""How far an estimated graph is from the true one: SHD, FDR, TPR and FPR in the convention of NOTEARS.

The convention is that of CoLiDE's released code (arXiv 2310.02895, SAMiatto/colide utils.py: ``count_accuracy``).
"""

from __future__ import annotations

import numpy as np

from sparselab.estimation.problems.graphs.cpdag import cpdag
from sparselab.estimation.problems.graphs.intervention import intervention_distance
from sparselab.estimation.problems.graphs.order import is_acyclic


def hamming(true: np.ndarray, found: np.ndarray) -> int:
    """Return the structural Hamming distance: extra plus missing edges of the skeleton plus reversed edges (1 each).

    Args:
        true: (d, d) bool, (i, j) an edge from i to j
        found: the same
    """
    true, found = true != 0, found != 0
    skeletons = np.triu((true | true.T) ^ (found | found.T))
    return int(skeletons.sum() + _reversed(true, found).sum())


def _reversed(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    return found & true.T & ~true


def compare(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Scores of ``found`` against ``true``, both (d, d), non-zero at (i, j) for an edge i -> j, both acyclic.

    ``shd``; ``fdr`` (reversed + false) / found; ``tpr`` right / true; ``fpr`` (reversed + false) / pairs without a true
    edge; ``edges`` found; ``sid`` pairs whose intervention is inferred wrongly; ``shd_c`` the SHD of the classes of
    Markov-equivalent graphs. Raises ValueError for a cycle.
    """
    true, found = true != 0, found != 0
    if not (is_acyclic(true) and is_acyclic(found)):
        raise ValueError("a graph has a cycle")
    d = len(true)
    right = (found & true).sum()
    wrong = found.sum() - right
    without = d * (d - 1) / 2 - true.sum()
    return {
        "shd": float(hamming(true, found)),
        "fdr": float(wrong / max(found.sum(), 1)),
        "tpr": float(right / max(true.sum(), 1)),
        "fpr": float(wrong / max(without, 1)),
        "edges": float(found.sum()),
        "sid": float(intervention_distance(true, found)),
        "shd_c": float(pattern_distance(cpdag(true), cpdag(found))),
    }


def pattern_distance(one: np.ndarray, other: np.ndarray) -> int:
    """Count pairs of nodes that two partially directed graphs join differently (not, forward, backward, undirected).

    Args:
        one: (d, d) bool; both (i, j) and (j, i) are an undirected edge
        other: the same
    """
    differ = (one != 0) != (other != 0)
    return int(np.triu(differ | differ.T).sum())
