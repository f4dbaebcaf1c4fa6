"""Preconditioners that need no answer: the columns themselves, or differences along a tree of columns. STAND-INS.

Routines that look at X alone. They are not Phase 1 of Chandrasekaran, Meka & Stavropoulos (2025, arXiv 2511.06211), whose
text could not be read; the paper's interface is kept: any routine that returns S, checked by its certificate.
"""

from __future__ import annotations

import numpy as np

from sparselab.estimation.estimators.linear.features import Preconditioner, scaled

ROOT = -1  # parent of a tree's root
TINY = 1e-15  # so that columns at distance 0 have an edge


def chain(d: int) -> np.ndarray:
    """(d,) parents of a path: each column's is the one before it."""
    return np.arange(d) - 1


def binary(d: int) -> np.ndarray:
    """(d,) parents in the order of a heap: (j - 1) // 2."""
    return np.where(np.arange(d) > 0, (np.arange(d) - 1) // 2, ROOT)


TREES = {"chain": chain, "binary": binary}


ONE_LENGTH = {"raw": False, "unit": True}
"""By the step of a difference: are columns scaled to one length first?"""


def identity(X: np.ndarray) -> Preconditioner:
    """The columns, scaled: the ordinary Lasso.

    Args:
        X: (n, d) float64
    """
    return scaled("identity", X, np.eye(X.shape[1]), np.eye(X.shape[1]))


def difference(
    X: np.ndarray, parents: np.ndarray, signs: np.ndarray | None = None, step: str = "raw"
) -> Preconditioner:
    """Feature j is X_j - s_j X_parent(j), the root's X_root; the way back sums along the path to the root.

    parents: (d,), ROOT for a root. signs: (d,) of ±1, the s_j. step: ``raw`` (of the columns as they are) or ``unit`` (of
    columns scaled to one length first). ValueError where the parents are no tree.
    """
    d = X.shape[1]
    signs = np.ones(d) if signs is None else signs
    S, lift = np.eye(d), np.zeros((d, d))
    for j in _downwards(parents, d):
        lift[j, j] = 1.0
        if parents[j] != ROOT:
            S[parents[j], j] = -signs[j]
            lift[:, j] += signs[j] * lift[:, parents[j]]
    if ONE_LENGTH[step]:
        norms = np.linalg.norm(X, axis=0)
        norms = np.where(norms > 0, norms, 1.0)
        S, lift = S / norms[:, None], lift * norms
    return scaled("difference", X, S, lift)


def spanning(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the minimum spanning tree of the distances between columns of length 1.

    A column and its opposite count as one, so a sign goes with each edge. The root is the shortest column: of cumulative
    ones the first. O(d^2 N).

    Args:
        X: (n, d) float64

    Returns:
        (parents, signs), (d,) each.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    norms = np.linalg.norm(X, axis=0)
    unit = X / np.where(norms > 0, norms, 1.0)
    angles = unit.T @ unit
    apart = np.sqrt(np.maximum(2 - 2 * np.abs(angles), 0)) + TINY
    tree = minimum_spanning_tree(csr_array(np.triu(apart, 1)))  # of a dense matrix it would drop distances below 1e-8
    root = int(np.argmin(np.where(norms > 0, norms, np.inf)))
    _, parents = breadth_first_order(tree, root, directed=False, return_predecessors=True)
    parents = np.where(parents < 0, ROOT, parents)
    signs = np.where(parents == ROOT, 1.0, np.sign(angles[np.arange(len(parents)), parents]))
    return parents, np.where(signs == 0, 1.0, signs)


def auto_tree(X: np.ndarray, step: str = "raw") -> Preconditioner:
    """Differences along the minimum spanning tree of the columns.

    Args:
        X: (n, d) float64
        step: differences of the columns as they are (``raw``) or scaled to length 1 (``unit``)
    """
    parents, signs = spanning(X)
    found = difference(X, parents, signs, step)
    return Preconditioner("auto_tree", found.S, found.lift)


def _downwards(parents: np.ndarray, d: int) -> list[int]:
    """All columns, parents first. ValueError unless ``parents`` is a forest of ``d`` columns."""
    if parents.shape != (d,) or not np.issubdtype(parents.dtype, np.integer) or (parents >= d).any():
        raise ValueError(f"tree of shape {parents.shape}: has to be the number of its parent for each of {d} columns")
    children: dict[int, list[int]] = {}
    for j, parent in enumerate(parents.tolist()):
        children.setdefault(max(parent, ROOT), []).append(j)
    order, waiting = [], children.get(ROOT, [])[::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += children.get(order[-1], [])[::-1]
    if len(order) < d:
        raise ValueError("tree: has a cycle; a root's parent is -1")
    return order
