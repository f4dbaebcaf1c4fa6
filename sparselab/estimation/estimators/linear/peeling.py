"""Peeling: what most columns share with a few is taken off them, round by round. A STAND-IN, like all of Phase 1 here.

Of the dossier's making, not of the paper (arXiv 2511.06211), whose text could not be read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparselab.estimation.estimators.linear.features import Preconditioner, scaled


def peel(
    X: np.ndarray,
    good: Callable[[Preconditioner], bool],
    tau: float = 0.5,
    share: float = 0.25,
    few: int = 3,
    rounds: int = 10,
) -> Preconditioner:
    """Features with the projections on a small set Q of them taken off, until ``good`` says that the certificate holds.

    A round: Q is chosen greedily, ``few`` features at most, so that most others lie within ``tau`` of Q's span (all of length
    1). Where a ``share`` of the features at least does, these lose their projections. Q keeps its features; a former Q that is
    itself taken off stays beside what is left of it, so S can be wider than d. O(rounds d^2 (N + few)).

    Args:
        X: (n, d) float64
        good: whether the certificate holds
        tau: largest distance from the span, of columns of length 1
        share: of the features that have to be near
        few: features in Q, at most
        rounds: at most
    """
    found = scaled("peel", X, np.eye(X.shape[1]), np.eye(X.shape[1]))
    former: set[int] = set()
    for _ in range(rounds):
        if good(found):
            break
        F = found.of(X) / np.sqrt(len(X))
        chosen, near = cover(F, tau, few)
        if len(near) < share * F.shape[1]:
            break
        weights = np.linalg.lstsq(F[:, chosen], F[:, near])[0]
        S, lift = found.S.copy(), found.lift.copy()
        S[:, near] -= found.S[:, chosen] @ weights
        lift[chosen] += weights @ found.lift[near]
        again = [j for j in near.tolist() if j in former]
        S = np.hstack([S, found.S[:, again]])
        lift = np.vstack([lift, np.zeros((len(again), lift.shape[1]))])
        norms = np.linalg.norm(X @ S, axis=0)
        kept = np.flatnonzero(norms > 1e-12 * norms.max())
        place = {int(old): new for new, old in enumerate(kept)}
        former = {place[j] for j in [*(former - set(again)), *chosen, *range(F.shape[1], S.shape[1])] if j in place}
        found = scaled("peel", X, S, lift)
    return found


def cover(F: np.ndarray, tau: float, few: int) -> tuple[list[int], np.ndarray]:
    """(Q, the features within ``tau`` of the span of Q but not in it): at each step the feature that brings most in.

    It ends with ``few`` features, or where one more brings nothing in. F: (N, m) of columns of length 1. Of equal ones that
    which leaves the least of all the others counts, then the first.
    """
    left, chosen = F.copy(), list[int]()
    best = np.zeros(0, int)
    for _ in range(min(few, F.shape[1])):
        inner = left.T @ left
        sizes = np.diag(inner).copy()
        free = sizes > 1e-12
        rest = sizes[None] - np.where(free[:, None], inner**2, 0) / np.where(free, sizes, 1.0)[:, None]
        within = (rest <= tau**2).sum(1) - np.maximum(rest, 0).sum(1) / (1 + F.shape[1])
        q = int(np.argmax(np.where(free, within, -np.inf)))
        if not free[q]:
            break
        direction = left[:, q] / np.sqrt(sizes[q])
        left = left - np.outer(direction, direction @ left)
        inside = np.flatnonzero((left**2).sum(0) <= tau**2)
        inside = inside[~np.isin(inside, [*chosen, q])]
        if chosen and len(inside) <= len(best):
            break
        chosen.append(q)
        best = inside
    return chosen, best
