"""Draws of a planted sparse linear model: its parameter, blocks of rows, and exact moments of any number of rows."""

from __future__ import annotations

import numpy as np

from sparselab.estimation.problems.linear.law import Law
from sparselab.estimation.problems.linear.users import BLOCK, Block


def parameter(law: Law, rng: np.random.Generator) -> np.ndarray:
    """(d,) with k entries ±1/sqrt(k) at random places: of length 1."""
    theta = np.zeros(law.d)
    theta[rng.permutation(law.d)[: law.k]] = rng.choice([-1.0, 1.0], law.k) / np.sqrt(law.k)
    return theta


def root(law: Law) -> np.ndarray:
    """(d, d) lower triangular L with L L^T the covariance of a row."""
    apart = np.abs(np.subtract.outer(np.arange(law.d), np.arange(law.d)))
    return np.linalg.cholesky(law.correlation**apart) if law.correlation else np.eye(law.d)


def rows(law: Law, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, d) rows of the design."""
    if law.design == "signs":
        bits = np.unpackbits(np.frombuffer(rng.bytes(-(-count * law.d // 8)), np.uint8), count=count * law.d)
        return 2.0 * bits.reshape(count, law.d) - 1.0
    X = rng.standard_normal((count, law.d))
    return X @ root(law).T if law.correlation else X


def block(law: Law, theta: np.ndarray, rng: np.random.Generator) -> Block:
    """Draw BLOCK rows with their responses.

    Args:
        law: of rows and noise
        theta: (d,)
        rng: draws

    Returns:
        ((BLOCK, d), (BLOCK,)).
    """
    X = rows(law, BLOCK, rng)
    return X, X @ theta + law.noise * rng.standard_normal(BLOCK)


def moments(law: Law, theta: np.ndarray, n: int, rng: np.random.Generator) -> Block:
    """Draw the moments of ``n`` rows, in law what rows one by one would give, at a cost that does not grow with n.

    Normal rows: (x, y) is jointly normal, so the moments are a Wishart matrix (Bartlett's decomposition). Signs: the
    counts of the 2^d patterns are multinomial, and the noise of all rows of a pattern adds up to one normal number.

    Args:
        law: of rows and noise
        theta: (d,)
        n: rows
        rng: draws

    Returns:
        (X^T X / n (d, d), X^T y / n (d,)).
    """
    if law.design == "signs":
        return _of_signs(law, theta, n, rng)
    L = np.zeros((law.d + 1, law.d + 1))
    L[:-1, :-1] = root(law)
    L[-1, :-1], L[-1, -1] = theta @ L[:-1, :-1], law.noise
    A = np.tril(rng.standard_normal(L.shape), -1)
    A[np.diag_indices(law.d + 1)] = np.sqrt(rng.chisquare(n - np.arange(law.d + 1.0)))
    half = L @ A
    both = half @ half.T / n
    return both[:-1, :-1], both[:-1, -1]


def _of_signs(law: Law, theta: np.ndarray, n: int, rng: np.random.Generator) -> Block:
    """Patterns are a table: the first features' signs say the row, the others' the column, so no (2^d, d) matrix is made."""
    first = law.d // 2
    A, B = _patterns(first), _patterns(law.d - first)
    shape = (len(A), len(B))
    counts = rng.multinomial(n, np.full(1 << law.d, 0.5**law.d)).astype(float).reshape(shape)
    predicted = np.add.outer(A @ theta[:first], B @ theta[first:])
    responses = counts * predicted + law.noise * np.sqrt(counts) * rng.standard_normal(shape)
    across = A.T @ counts @ B
    own = [(P.T * counts.sum(axis=axis)) @ P for P, axis in ((A, 1), (B, 0))]
    xx = np.block([[own[0], across], [across.T, own[1]]])
    return xx / n, np.concatenate([A.T @ responses.sum(axis=1), B.T @ responses.sum(axis=0)]) / n


def _patterns(d: int) -> np.ndarray:
    """(2^d, d): every pattern of ``d`` signs."""
    return 1.0 - 2.0 * ((np.arange(1 << d)[:, None] >> np.arange(d)) & 1)
