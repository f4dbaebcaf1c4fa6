"""Scores of weights W given the covariance of the data, smooth part; D = I - W, R = D^T cov D the residual covariance.

A score's ``scale`` is what it knows about the noise. It has a closed form for given W, which the solver renews after
each step; the gradient in W then is ``-cov D * pull(scale)``, column by column.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


class LeastSquares:
    """DAGMA's score: Tr(R) / 2. It has no scale."""

    def __init__(self, covariance: Array):
        self.d = len(covariance)

    def start(self, covariance: Array) -> Array:
        """The scale at W = 0."""
        return np.ones(())

    def scale(self, residual: Array) -> Array:
        """The best scale for the residual variances ``residual`` = diag(R), (d,)."""
        return np.ones(())

    def pull(self, scale: Array) -> Array:
        """What ``-cov D`` is multiplied by in the gradient: a scalar, or one number a column."""
        return np.ones(())

    def value(self, residual: Array, scale: Array) -> float:
        """The smooth part of the score."""
        return 0.5 * float(residual.sum())


class EqualVariances(LeastSquares):
    """CoLiDE-EV: Tr(R) / (2 sigma) + d sigma / 2 with one standard deviation sigma >= floor.

    ``floor`` is a fraction of the smallest standard deviation of a column, or None for none (as released).
    """

    def __init__(self, covariance: Array, floor: float | None = None):
        super().__init__(covariance)
        self.floor = 0.0 if floor is None else floor * self.start(covariance)

    def start(self, covariance: Array) -> Array:
        return np.sqrt(np.diag(covariance).min())

    def scale(self, residual: Array) -> Array:
        return np.maximum(np.sqrt(residual.sum() / self.d), self.floor)

    def pull(self, scale: Array) -> Array:
        return 1.0 / scale

    def value(self, residual: Array, scale: Array) -> float:
        return 0.5 * (float(residual.sum() / scale) + self.d * float(scale))


class UnequalVariances(EqualVariances):
    """CoLiDE-NV: sum_i R_ii / (2 sigma_i) + sigma_i / 2 with a standard deviation for each node."""

    def start(self, covariance: Array) -> Array:
        return np.sqrt(np.diag(covariance))

    def scale(self, residual: Array) -> Array:
        return np.maximum(np.sqrt(np.maximum(residual, 0.0)), self.floor)

    def value(self, residual: Array, scale: Array) -> float:
        return 0.5 * float((residual / scale + scale).sum())
