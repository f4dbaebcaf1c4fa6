"""Mutual information in nats, as fastHDMI computes it (arXiv 2410.10082; Kaiyangshi-Ito/fastHDMI)."""

from __future__ import annotations

import numpy as np

from sparselab.estimation.estimators.information.density import axis, bandwidth, density, joint_density

Array = np.ndarray
MOST_BINS = 99
FEWEST = 3  # samples of a class that have a density


def of_joint(joint: Array, step_a: float = 1.0, step_b: float = 1.0) -> float:
    """Return the information of a joint density on a grid: sum of J (log J - log row - log column), 0 log 0 = 0, at least 0.

    joint: (points of a, points of b), at least 0. step_a, step_b: the grids' steps; 1 for probabilities.
    """
    rows, columns = joint.sum(1, keepdims=True) * step_b, joint.sum(0, keepdims=True) * step_a
    on = joint > 0
    ratio = np.log(np.divide(joint, rows * columns, out=np.ones_like(joint), where=on))
    return max(float((joint * ratio).sum()) * step_a * step_b, 0.0)


def kernel_information(x: Array, y: Array, points: int, bw: str | float) -> float:
    """Return the information of two continuous variables by a 2-D kernel density of their z-scores, on points² places.

    A rule's bandwidths are of either variable; the density is then one of bandwidth 1 of the variables divided by them, which
    have the same information.
    """
    a, b = (z / bandwidth(z, bw) for z in (_scores(x), _scores(y)))
    a_grid, b_grid = axis(a, 1.0, points), axis(b, 1.0, points)
    joint = joint_density(a, b, a_grid, b_grid, 1.0)
    return of_joint(joint, float(a_grid[1] - a_grid[0]), float(b_grid[1] - b_grid[0]))


def class_information(x: Array, labels: Array, points: int, bw: str | float, indexing: str = "correct") -> float:
    """Return the information of a continuous variable and a class, by a kernel density for each class.

    labels: (n,) 0, 1, … . A class of fewer than 3 samples has no density. ``indexing="repo"`` fills a class's column with the
    first value of its density, as the published code does (it takes ``[0]`` of what is the vector already).
    """
    z = _scores(x)
    grid = axis(z, bandwidth(z, bw), points)
    shares = np.bincount(labels) / len(labels)
    joint = np.zeros((points, len(shares)))
    for label, share in enumerate(shares):
        own = z[labels == label]
        if len(own) >= FEWEST:
            found = density(own, grid, bandwidth(own, bw))
            joint[:, label] = share * (found[0] if indexing == "repo" else found)
    return of_joint(joint, float(grid[1] - grid[0]))


def bins(x: Array) -> int:
    """Return the number of equal bins, 2 to 99, with the largest penalised likelihood (Birgé & Rozenholc 2006)."""
    best, most = 2, -np.inf
    for count in range(2, MOST_BINS + 1):
        full = np.bincount(_bin(x, count)).astype(float)
        full = full[full > 0]
        value = float((full * np.log(full)).sum()) + len(x) * np.log(count) - (count - 1 + np.log(count) ** 2.5)
        if value > most:
            best, most = count, value
    return best


def binned(x: Array) -> Array:
    """(n,) the bin, 0, 1, …, of each value in the histogram whose number of bins is :func:`bins`."""
    return _bin(x, bins(x))


def binned_information(x: Array, y: Array, labels: bool = False) -> float:
    """Return the information of the 2-D histogram of x and y; ``labels``: y holds classes (or bins) 0, 1, …, one a row."""
    a, b = binned(x), y if labels else binned(y)
    joint = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(joint, (a, b), 1 / len(x))
    return of_joint(joint)


def _scores(x: Array) -> Array:
    """The z-scores of ``x``, standard deviation of n."""
    return (x - x.mean()) / x.std()


def _bin(x: Array, count: int) -> Array:
    """(n,) the bin of each value among ``count`` of equal width over the range."""
    width = (x.max() - x.min()) / count
    return np.minimum(((x - x.min()) / width).astype(int), count - 1)
