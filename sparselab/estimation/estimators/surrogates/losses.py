"""Losses of a surrogate: the Gaussian likelihood with a learned spread, and the squared error."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


class Gaussian:
    """The negative log-likelihood of y under N(mean, exp(s)²), s held softly between two learned bounds.

    The outputs of the network are the mean and the raw s; behind its parameters stand the upper and the lower bound.
    """

    outputs = 2

    def bounds(self, dtype: type = np.float32) -> Array:
        """The first bounds: log 0.2 above, log 0.1 below."""
        return np.log(np.array([0.2, 0.1])).astype(dtype)

    def slopes(self, out: Array, y: Array, weights: Array, bounds: Array) -> tuple[float, Array, Array]:
        """(the weighted mean of the loss, its slopes in the outputs, and in the bounds)."""
        high, low = bounds
        raw = out[:, 1]
        capped = high - softplus(high - raw)
        spread = low + softplus(capped - low)
        off = (out[:, 0] - y) * np.exp(-spread)
        share = shares(weights)
        value = float(share @ (0.5 * off * off + spread) + 0.5 * np.log(2 * np.pi))
        found, by_spread = np.empty_like(out), share * (1 - off * off)
        found[:, 0] = share * off * np.exp(-spread)
        by_cap, by_raw = sigmoid(capped - low), sigmoid(high - raw)
        found[:, 1] = by_spread * by_cap * by_raw
        by_bounds = [by_spread @ (by_cap * (1 - by_raw)), by_spread @ (1 - by_cap)]
        return value, found, np.array(by_bounds, out.dtype)


class Squared:
    """The squared error; the network's output is the mean."""

    outputs = 1

    def bounds(self, dtype: type = np.float32) -> Array:
        """None."""
        return np.zeros(0, dtype)

    def slopes(self, out: Array, y: Array, weights: Array, bounds: Array) -> tuple[float, Array, Array]:
        """(the weighted mean of the loss, its slopes in the outputs, none in the bounds)."""
        off, share = out[:, 0] - y, shares(weights)
        return float(share @ (off * off)), (2 * share * off)[:, None], bounds


def shares(weights: Array) -> Array:
    """Counts over their sum; a batch of which nothing was drawn has no loss."""
    return weights / max(weights.sum(), weights.dtype.type(1))


def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    return np.logaddexp(0, x).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * x))).astype(x.dtype)
