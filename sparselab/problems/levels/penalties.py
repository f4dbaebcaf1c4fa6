"""A ridge penalty of its own for every feature, learned on held-out samples; the lower level has a closed form."""

from __future__ import annotations

import numpy as np

from sparselab.problems.levels.instance import Array, Instance, Rows

SMOOTH = 1e-3  # |w| is sqrt(w² + SMOOTH²) in the upper level


class Penalties(Instance):
    """g = |Aw - b|² / 2n + sum of exp(x_j) w_j² / 2, and f = |Cw - d|² / 2m + l1 * sum of |w_j| (smoothed).

    x: (q,) log-penalties in [low, high]; y: (q,) weights w. Everything in terms of the Gram matrices, so that a gradient
    costs q² whatever the number of samples.
    """

    def __init__(
        self, fit: tuple[Array, Array], held: tuple[Array, Array], start: float, low: float, high: float, l1: float
    ):
        (a, b), (c, d) = fit, held
        self.gram, self.right, self.size = a.T @ a / len(a), a.T @ b / len(a), float(b @ b) / len(b)
        self.held_gram, self.held_right, self.held_size = c.T @ c / len(c), c.T @ d / len(c), float(d @ d) / len(d)
        self.low, self.high, self.l1 = low, high, l1
        self.x0, self.y0 = np.full(a.shape[1], start), np.zeros(a.shape[1])
        self.probes = self.x0[None]
        self._top = _top(self.gram)
        self.upper_curvature = _top(self.held_gram) + l1 / SMOOTH

    def lower_curvature(self, x: Array) -> Array:
        return self._top + np.exp(x)

    def upper(self, x: Array, y: Array, rows: Rows = None) -> float:
        square = 0.5 * (float(y @ self.held_gram @ y) - 2 * float(self.held_right @ y) + self.held_size)
        return square + self.l1 * float((np.sqrt(y**2 + SMOOTH**2) - SMOOTH).sum())

    def upper_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        found = self.held_gram @ y - self.held_right
        return found + self.l1 * y / np.sqrt(y**2 + SMOOTH**2) if self.l1 else found

    def lower(self, x: Array, y: Array, rows: Rows = None) -> float:
        square = 0.5 * (float(y @ self.gram @ y) - 2 * float(self.right @ y) + self.size)
        return square + 0.5 * float(np.exp(x) @ y**2)

    def lower_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return 0.5 * np.exp(x) * y**2

    def lower_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return self.gram @ y - self.right + np.exp(x) * y

    def lower_yy(self, x: Array, y: Array, v: Array) -> Array:
        return self.gram @ v + np.exp(x) * v

    def lower_xy(self, x: Array, y: Array, v: Array) -> Array:
        return np.exp(x) * y * v

    def project_x(self, x: Array) -> Array:
        return np.clip(x, self.low, self.high)

    def weights(self, x: Array) -> Array:
        """(q,) the lower level's minimiser."""
        return np.linalg.solve(self.gram + np.diag(np.exp(x)), self.right)

    def value(self, x: Array) -> float:
        return self.upper(x, self.weights(x))

    def gradient(self, x: Array) -> Array:
        w = self.weights(x)
        v = np.linalg.solve(self.gram + np.diag(np.exp(x)), self.upper_y(x, w))
        return -np.exp(x) * w * v


def _top(gram: Array) -> float:
    return float(np.linalg.eigvalsh(gram)[-1]) if len(gram) else 0.0
