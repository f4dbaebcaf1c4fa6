"""Places and values of a planted parameter. A place is drawn before anything is known of the values, or the noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SMALL = 1e-10  # singular values of the support's columns below this share of the largest are taken as zero


def uniform(X: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a support, any with the same chance: each column with k / d.

    Args:
        X: (n, d)
        k: columns of the support
        rng: draws

    Returns:
        (k,) different columns.
    """
    return np.sort(rng.permutation(X.shape[1])[:k])


def adjacent(X: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the first of k columns in a row.

    Args:
        X: (n, d)
        k: columns of the support
        rng: draws

    Returns:
        (k,) columns.
    """
    first = rng.integers(X.shape[1] - k + 1)
    return np.arange(first, first + k)


def closest(X: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a column, and take the k - 1 whose angle to it (or to its opposite) is smallest.

    Args:
        X: (n, d)
        k: columns of the support
        rng: draws

    Returns:
        (k,) columns.
    """
    norms = np.linalg.norm(X, axis=0)
    unit = X / np.where(norms > 0, norms, 1)
    first = int(rng.choice(np.flatnonzero(norms > 0)))
    near = np.abs(unit.T @ unit[:, first])
    near[first] = 2.0
    return np.sort(np.argsort(-near, kind="stable")[:k])


SUPPORTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "random": uniform,
    "adjacent": adjacent,
    "closest": closest,
}


def worst(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The direction in which the support's columns ``A`` nearly cancel: the right singular vector of the smallest value.

    Values that are zero but for rounding are passed over, since nothing can be seen of them.
    """
    _, sizes, directions = np.linalg.svd(A, full_matrices=False)
    seen = np.flatnonzero(sizes > SMALL * sizes[0]) if sizes[0] > 0 else np.zeros(0, int)
    return directions[seen[-1]] if len(seen) else directions[0]


def gauss(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw independent standard normal numbers.

    Args:
        A: (n, k), the support's columns
        rng: draws

    Returns:
        (k,) float64.
    """
    return rng.standard_normal((A.shape[1],))


VALUES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {"worst": worst, "gauss": gauss}


def parameter(X: np.ndarray, places: np.ndarray, values: str, rng: np.random.Generator) -> np.ndarray:
    """(d,) with non-zeros at ``places`` alone, scaled so that |X w|^2 = N. ValueError where X w vanishes for all of them."""
    w = np.zeros(X.shape[1])
    w[places] = VALUES[values](X[:, places], rng)
    size = np.linalg.norm(X @ w) / np.sqrt(len(X))
    if not size > 0:
        raise ValueError("all columns of the support are zero")
    return w / size
