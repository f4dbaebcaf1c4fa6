"""The class of graphs that say the same about independences, as one partially directed graph."""

from __future__ import annotations

import numpy as np


def cpdag(dag: np.ndarray) -> np.ndarray:
    """Return the class of an acyclic graph.

    Colliders keep their arrows; the first three rules of Meek (1995) orient what follows (for the class of a DAG the
    fourth never applies).

    Args:
        dag: (d, d) bool, acyclic

    Returns:
        (d, d) bool: (i, j) alone is i -> j, both (i, j) and (j, i) an undirected edge.
    """
    dag = dag != 0
    joined = dag | dag.T
    pattern = joined.copy()
    for child in range(len(dag)):
        parents = np.flatnonzero(dag[:, child])
        apart = ~joined[np.ix_(parents, parents)]
        np.fill_diagonal(apart, False)
        pattern[child, parents[apart.any(1)]] = False  # parent - child becomes parent -> child
    while (change := _implied(pattern)).any():
        pattern &= ~change.T
    return pattern


def _implied(pattern: np.ndarray) -> np.ndarray:
    """(i, j) where i - j has to become i -> j."""
    arrow, line = pattern & ~pattern.T, pattern & pattern.T
    joined = pattern | pattern.T
    apart = ~joined
    np.fill_diagonal(apart, False)
    # 1: k -> i - j with k and j apart. 2: i -> k -> j with i - j.
    first = (arrow.T.astype(int) @ apart.astype(int)) > 0
    second = (arrow.astype(int) @ arrow.astype(int)) > 0
    implied = line & (first | second)
    # 3: i - k -> j and i - l -> j with k and l apart, i - j.
    for i, j in zip(*np.nonzero(line & ~implied), strict=True):
        between = np.flatnonzero(line[i] & arrow[:, j])
        implied[i, j] = apart[np.ix_(between, between)].any()
    return implied
