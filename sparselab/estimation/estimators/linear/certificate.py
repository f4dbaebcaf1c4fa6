"""The certificate of a preconditioner: how long a v it takes for a signal of energy 1 on a random support.

rho(S; T) = max over w on T with |X w|^2 = N of min {|v|_1 : S v = w}. The Lasso in features X S then has an error of at
most 4 lam rho on T, for any X. It looks at X alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from sparselab.estimation.estimators.linear.features import Preconditioner

VANISHING = 1e-10  # singular values of a support's columns, as a share of the largest, that are taken as zero
COUNTABLE = 12  # different rows up to which all patterns of signs are tried
ASCENTS, STEPS = 24, 100  # beyond that: starts, and most steps from each


@dataclass(frozen=True)
class Certificate:
    """``median`` and ``high`` (90 %) of rho over ``draws`` uniform supports of ``k`` columns; inf where none is finite."""

    median: float
    high: float
    k: int
    draws: int


def rho(X: np.ndarray, features: Preconditioner, T: np.ndarray) -> float:
    """Return rho of S on T, with the preconditioner's own way back; inf where X cannot see some w on T but |v|_1 can.

    Exact for a square S that mixes few columns (at most COUNTABLE different rows, so always for k <= COUNTABLE columns as they
    are); else the best of several ascents, a lower bound for a square S and an estimate for a wide one.
    """
    R = cast(np.ndarray, np.linalg.qr(X[:, T], mode="r"))
    _, sizes, directions = np.linalg.svd(R / math.sqrt(len(X)))
    sizes = np.concatenate([sizes, np.zeros(len(T) - len(sizes))])
    seen = sizes > VANISHING * sizes[0] if sizes[0] > 0 else np.zeros(len(T), bool)
    back = features.lift[:, T]
    hidden = np.abs(back @ directions[~seen].T).max(initial=0.0)
    if hidden > 1e-7 * np.abs(back).max(initial=0.0):
        return math.inf
    return longest(back @ directions[seen].T / sizes[seen])


def longest(A: np.ndarray) -> float:
    """max |A u|_1 over |u| = 1, A (m, k). Proportional rows count as one, which their sum replaces."""
    A = _merged(A)
    if not len(A):
        return 0.0
    if len(A) <= COUNTABLE:
        bits = np.arange(1 << (len(A) - 1))[:, None] >> np.arange(len(A)) & 1
        return float(np.linalg.norm((1.0 - 2.0 * bits) @ A, axis=1).max())
    _, _, starts = np.linalg.svd(A, full_matrices=False)
    rows = A[np.argsort(-np.linalg.norm(A, axis=1), kind="stable")[: ASCENTS - len(starts)]]
    u = np.vstack([starts, rows / np.linalg.norm(rows, axis=1, keepdims=True)]).T
    for _ in range(STEPS):
        up = A.T @ np.where(A @ u >= 0, 1.0, -1.0)  # of the convex function, so no step goes down
        up /= np.linalg.norm(up, axis=0)
        if np.abs(up - u).max() < 1e-12:
            break
        u = up
    return float(np.abs(A @ u).sum(0).max())


def _merged(A: np.ndarray) -> np.ndarray:
    """Rows of ``A`` that are not zero, with those that point the same (or the opposite) way added up."""
    norms = np.linalg.norm(A, axis=1)
    A = A[norms > 1e-12 * norms.max(initial=0.0)]
    first = A[np.arange(len(A)), np.abs(A).argmax(1)] if len(A) else np.zeros(0)
    A = A * np.where(first < 0, -1.0, 1.0)[:, None]
    unit = np.round(A / np.linalg.norm(A, axis=1, keepdims=True), 10) + 0.0
    _, group = np.unique(unit, axis=0, return_inverse=True)
    total = np.zeros((group.max(initial=-1) + 1, A.shape[1]))
    np.add.at(total, group.ravel(), A)
    return total


def certify(
    X: np.ndarray,
    features: Preconditioner,
    k: int,
    draws: int,
    rng: np.random.Generator,
    of: Callable[[np.ndarray, Preconditioner, np.ndarray], float] = rho,
) -> Certificate:
    """Compute the certificate over supports, each of columns drawn uniformly.

    Args:
        X: (n, d) float64
        features: the preconditioner
        k: columns of a support
        draws: how many supports
        rng: draws
        of: the certificate of one support
    """
    found = [of(X, features, rng.permutation(X.shape[1])[:k]) for _ in range(draws)]
    median, high = (float(np.quantile(found, q, method="higher")) for q in (0.5, 0.9))
    return Certificate(median, high, k, draws)
