"""The structural intervention distance (Peters & Bühlmann 2015, arXiv 1306.1043)."""

from __future__ import annotations

import numpy as np

from sparselab.estimation.problems.graphs.order import reachable


def intervention_distance(true: np.ndarray, found: np.ndarray) -> int:
    """Pairs (i, j) for which p(x_j | do(x_i)), computed from ``found`` by adjusting for i's parents, is wrong in ``true``.

    Adjustment is right iff the parents hold no descendant of a node on a directed path from i to j, and separate i from
    j once the first edges of these paths are cut (the adjustment criterion, which is sound and complete). Where j is
    itself a parent of i in ``found``, no effect is claimed, which is wrong iff j descends from i. O(d) reachability
    searches for each i.
    """
    true, found = true != 0, found != 0
    below = reachable(true)
    at_or_below = below | np.eye(len(true), dtype=bool)
    wrong = 0
    for i in range(len(true)):
        parents = found[:, i]
        claimed = np.flatnonzero(~parents)
        claimed = claimed[claimed != i]
        wrong += int(below[i, parents].sum())
        for cut, targets in _by_first_edges(true, at_or_below, i, claimed):
            spoiled = targets[[_forbidden(at_or_below, below[i], j, parents) for j in targets]]
            rest = np.setdiff1d(targets, spoiled)
            wrong += len(spoiled)
            if len(rest):
                connected = d_connected(cut, i, parents)
                wrong += int(connected[rest].sum())
    return wrong


def _by_first_edges(
    true: np.ndarray, at_or_below: np.ndarray, i: int, targets: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Targets grouped by the children of i that lead to them: (the graph without these first edges, the targets)."""
    groups: dict[bytes, list[int]] = {}
    for j in targets.tolist():
        groups.setdefault((true[i] & at_or_below[:, j]).tobytes(), []).append(j)
    found = []
    for first, members in groups.items():
        cut = true.copy()
        cut[i, np.frombuffer(first, dtype=bool)] = False
        found.append((cut, np.array(members)))
    return found


def _forbidden(at_or_below: np.ndarray, descends: np.ndarray, j: int, adjusted: np.ndarray) -> bool:
    """True if something adjusted for descends from a node (other than the cause) on a directed path to j."""
    on_path = descends & at_or_below[:, j]
    return bool((at_or_below[on_path].any(0) & adjusted).any())


def d_connected(graph: np.ndarray, source: int, given: np.ndarray) -> np.ndarray:
    """Find the nodes that ``given`` does not separate from ``source``; linear in edges (Bayes ball).

    Args:
        graph: (d, d) bool, acyclic
        source: a node
        given: (d,) bool

    Returns:
        (d,) bool.
    """
    d = len(graph)
    opens = (reachable_to(graph, given) | given).tolist()  # a collider with itself or a descendant in ``given`` is open
    shut = given.tolist()
    parents = [np.flatnonzero(graph[:, node]).tolist() for node in range(d)]
    children = [np.flatnonzero(graph[node]).tolist() for node in range(d)]
    up, down = 0, 1  # how the node is entered: from a child, from a parent
    seen = {(source, up)}
    queue = [(source, up)]
    while queue:
        node, entered = queue.pop()
        following: list[tuple[int, int]] = []
        if entered == up and not shut[node]:
            following = [(p, up) for p in parents[node]] + [(c, down) for c in children[node]]
        elif entered == down:
            following = [(c, down) for c in children[node]] if not shut[node] else []
            following += [(p, up) for p in parents[node]] if opens[node] else []
        for state in following:
            if state not in seen:
                seen.add(state)
                queue.append(state)
    connected = np.zeros(d, dtype=bool)
    connected[[node for node, _ in seen if not shut[node]]] = True
    connected[source] = False
    return connected


def reachable_to(graph: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Find the nodes with a directed path to a marked node.

    Args:
        graph: (d, d) bool
        marked: (d,) bool

    Returns:
        (d,) bool.
    """
    reached = marked.copy()
    while True:
        more = reached | (graph & reached).any(1)
        if (more == reached).all():
            break
        reached = more
    return (graph & reached).any(1)
