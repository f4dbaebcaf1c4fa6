"""Kernel densities on equidistant grids, by linear binning and a convolution (FFT), with the Epanechnikov kernel.

Bandwidths are standard deviations of the kernel, as in KDEpy, which the paper's code calls.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.optimize import brentq
from scipy.signal import fftconvolve

Array = np.ndarray
REACH = float(np.sqrt(5.0))  # the support of an Epanechnikov kernel with standard deviation 1
MARGIN = 0.05  # of the range of the data: the least that a grid goes beyond them
QUARTILES = 1.3489795003921634  # distance of the quartiles of a standard normal variable
MESH = 2**10


def silverman(x: Array) -> float:
    """Return Silverman's rule: spread · (3n/4)^(-1/5)."""
    return _spread(x) * (len(x) * 0.75) ** -0.2


def scott(x: Array) -> float:
    """Return Scott's rule: spread · n^(-1/5)."""
    return _spread(x) * len(x) ** -0.2


def isj(x: Array) -> float:
    """Return the improved Sheather-Jones bandwidth (Botev, Grotowski & Kroese 2010). ValueError where it has no solution."""
    count, squares = len(np.unique(x)), np.arange(1.0, MESH) ** 2
    grid = _mesh(x, max(0.5 * float(np.ptp(x)), 6.0), MESH)
    energy = dct(binned(x, grid))[1:] ** 2

    def off(t: float) -> float:
        f = _norm(7, t, squares, energy)
        for order in range(6, 1, -1):
            odd = np.prod(np.arange(1, 2 * order + 1, 2, dtype=float)) / np.sqrt(2 * np.pi)
            step = 2 * (1 + 0.5 ** (order + 0.5)) / 3 * odd / (count * f)
            f = _norm(order, step ** (2 / (3 + 2 * order)), squares, energy)
        return t - (2 * count * np.sqrt(np.pi) * f) ** -0.4

    top = 1e-11 + 0.01 * (max(min(1050, count), 50) - 50) / 1000
    while top < 1:
        if off(top) > 0:
            return float(np.sqrt(brentq(off, 0.0, top)) * (grid[-1] - grid[0]))  # KDEpy: times the data's range
        top *= 2
    raise ValueError("bw='isj': no bandwidth solves its equation here; write bw='silverman'")


RULES = {"silverman": silverman, "scott": scott, "isj": isj}


def bandwidth(x: Array, rule: str | float) -> float:
    """Return the bandwidth of ``x`` by a rule's name, or the number itself; 1 where all values are the same."""
    if not isinstance(rule, str):
        return float(rule)
    return RULES[rule](x) or 1.0


def axis(x: Array, bw: float, points: int) -> Array:
    """(points,) an equidistant grid that reaches beyond ``x`` by the kernel's support, or 5 % of the range if that is more."""
    return _mesh(x, max(MARGIN * float(np.ptp(x)), REACH * bw), points)


def binned(x: Array, grid: Array) -> Array:
    """(len(grid),) shares of the data at each grid point; one between two points is divided by its distances."""
    low, rest = _places(x, grid)
    shares = np.bincount(low, 1 - rest, len(grid)) + np.bincount(low + 1, rest, len(grid))
    return shares / len(x)


def density(x: Array, grid: Array, bw: float) -> Array:
    """(len(grid),) the density of ``x``, (n,), on ``grid``, which reaches beyond the data."""
    step = float(grid[1] - grid[0])
    offsets = _offsets(step, bw, len(grid))
    kernel = np.maximum(1 - (offsets / (REACH * bw)) ** 2, 0.0) * 0.75 / (REACH * bw)
    return np.maximum(fftconvolve(binned(x, grid), kernel, mode="same"), 0.0)


def joint_density(x: Array, y: Array, x_grid: Array, y_grid: Array, bw: float) -> Array:
    """(len(x_grid), len(y_grid)) the density of the pairs, with a round kernel (distance in the 2-norm) and one bandwidth."""
    shares = np.zeros((len(x_grid), len(y_grid)))
    (i, a), (j, b) = _places(x, x_grid), _places(y, y_grid)
    for di, wa in ((0, 1 - a), (1, a)):
        for dj, wb in ((0, 1 - b), (1, b)):
            np.add.at(shares, (i + di, j + dj), wa * wb / len(x))
    reach = REACH * bw
    across, down = (_offsets(float(g[1] - g[0]), bw, len(g)) / reach for g in (x_grid, y_grid))
    kernel = np.maximum(1 - across[:, None] ** 2 - down**2, 0.0) * 2 / np.pi / reach**2
    return np.maximum(fftconvolve(shares, kernel, mode="same"), 0.0)


def _spread(x: Array) -> float:
    """Return the standard deviation (of n - 1), or what the quartiles say it is if that is less."""
    low, high = np.percentile(x, [25, 75])
    return min(float(x.std(ddof=1)), float(high - low) / QUARTILES)


def _mesh(x: Array, beyond: float, points: int) -> Array:
    return np.linspace(x.min() - beyond, x.max() + beyond, points)


def _places(x: Array, grid: Array) -> tuple[Array, Array]:
    """The grid point below each value, and how far it is to the next one, as a share of the step."""
    at = (x - grid[0]) / (grid[1] - grid[0])
    low = np.clip(at.astype(int), 0, len(grid) - 2)
    return low, at - low


def _offsets(step: float, bw: float, points: int) -> Array:
    """Distances from the kernel's centre at which it is evaluated."""
    most = min(int(REACH * bw / step), points)
    return np.arange(-most, most + 1) * step


def _norm(order: int, t: float, squares: Array, energy: Array) -> float:
    """Return |f^(order)|² of the density smoothed for a time t (Plancherel)."""
    return float(0.5 * np.pi ** (2 * order) * (squares**order * energy * np.exp(-squares * np.pi**2 * t)).sum())
