"""Scores of weights W given the covariance of the data, smooth part; D = I - W, R = D^T cov D the residual covariance.

A score's ``scale`` is what it knows of the noise: it has a closed form for given W, which the solver renews after each
step, and the gradient in W is then ``-cov D / scale``, column by column. Everything works on the last axes, so that many
problems can be solved at once: covariance (..., d, d), residual = diag(R) (..., d), scale (..., 1) or (..., d).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


class LeastSquares:
    """DAGMA's score: Tr(R) / 2. Its scale is 1, whatever the noise."""

    def start(self, covariance: Array) -> Array:
        """The scale at W = 0."""
        return np.ones((*covariance.shape[:-2], 1))

    def floor(self, covariance: Array) -> Array:
        """The least that a scale may become, of its shape."""
        return np.zeros((*covariance.shape[:-2], 1))

    def scale(self, residual: Array, floor: Array) -> Array:
        """The best scale for the residual variances."""
        return np.ones_like(floor)

    def value(self, residual: Array, scale: Array) -> Array:
        """(...,) the smooth part of the score."""
        return 0.5 * residual.sum(-1)


class EqualVariances(LeastSquares):
    """CoLiDE-EV: Tr(R) / (2 sigma) + d sigma / 2 with one standard deviation sigma >= floor.

    ``fraction``: the floor over the start (the smallest standard deviation of a column), or None for no floor, as released.
    """

    def __init__(self, fraction: float | None = None):
        self.fraction = fraction or 0.0

    def start(self, covariance: Array) -> Array:
        return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1).min(-1, keepdims=True))

    def floor(self, covariance: Array) -> Array:
        return self.fraction * self.start(covariance)

    def scale(self, residual: Array, floor: Array) -> Array:
        return np.maximum(np.sqrt(residual.sum(-1, keepdims=True) / residual.shape[-1]), floor)

    def value(self, residual: Array, scale: Array) -> Array:
        return 0.5 * (residual / scale + scale).sum(-1)


class UnequalVariances(EqualVariances):
    """CoLiDE-NV: sum_i R_ii / (2 sigma_i) + sigma_i / 2, each sigma_i with a floor and a start of its own."""

    def start(self, covariance: Array) -> Array:
        return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))

    def scale(self, residual: Array, floor: Array) -> Array:
        return np.maximum(np.sqrt(np.maximum(residual, 0.0)), floor)
