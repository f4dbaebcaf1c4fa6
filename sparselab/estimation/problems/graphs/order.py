"""Directed graphs as (d, d) arrays: a non-zero entry (i, j) is an edge from i to j."""

from __future__ import annotations

import numpy as np


def topological_order(adjacency: np.ndarray) -> list[int] | None:
    """Sort nodes along the edges.

    Args:
        adjacency: (d, d), not 0 at (i, j) for an edge from i to j

    Returns:
        Nodes such that every edge goes forward, lowest number first among equals; None where there is a cycle.
    """
    edges = adjacency != 0
    parents = edges.sum(0)
    ready, order = sorted(np.flatnonzero(parents == 0).tolist()), []
    while ready:
        node = ready.pop(0)
        order.append(node)
        for child in np.flatnonzero(edges[node]).tolist():
            parents[child] -= 1
            if not parents[child]:
                ready.append(child)
        ready.sort()
    return order if len(order) == len(edges) else None


def is_acyclic(adjacency: np.ndarray) -> bool:
    """True if there is no cycle; an entry on the diagonal is one.

    Args:
        adjacency: (d, d), not 0 where there is an edge
    """
    return topological_order(adjacency) is not None


def reachable(adjacency: np.ndarray) -> np.ndarray:
    """Tell whether a directed path leads from i to j. A node reaches itself only through a cycle.

    Args:
        adjacency: (d, d), not 0 where there is an edge

    Returns:
        (d, d) bool.
    """
    paths = adjacency != 0
    for via in range(len(paths)):
        paths = paths | (paths[:, via : via + 1] & paths[via : via + 1])
    return paths
