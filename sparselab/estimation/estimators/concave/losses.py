"""Smooth losses of a linear predictor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from scipy.linalg import eigh

Array = np.ndarray


class Loss(ABC):
    """f(eta) of the predictions eta = A b, (n,), and the targets y, (n,).

    bend: the largest second derivative of f with respect to a prediction, times n.
    released_share: the share of the slope that the paper's code compares in its strong rule.
    """

    bend: float
    released_share: float = 1.0

    @abstractmethod
    def value(self, eta: Array, y: Array) -> float: ...

    @abstractmethod
    def slope(self, eta: Array, y: Array) -> Array:
        """Return the derivative by each prediction, (n,)."""

    @abstractmethod
    def link(self, mean: float) -> float:
        """Return the prediction that fits targets of that mean best, where it is the same for all."""

    def curvature(self, A: Array) -> float:
        """Return the Lipschitz constant of the gradient of f(A b): bend times the largest eigenvalue of A A^T / n."""
        n, p = A.shape
        gram = A @ A.T if n < p else A.T @ A
        last = len(gram) - 1
        return self.bend * float(eigh(gram, eigvals_only=True, subset_by_index=[last, last])[0]) / n


class Squared(Loss):
    """|y - eta|² / 2n."""

    bend = 1.0
    released_share = 0.5

    def link(self, mean: float) -> float:
        return mean

    def value(self, eta: Array, y: Array) -> float:
        return float(((y - eta) ** 2).mean() / 2)

    def slope(self, eta: Array, y: Array) -> Array:
        return (eta - y) / len(y)


class Logistic(Loss):
    """(sum of log(1 + e^eta) - y eta) / 2n for y of 0 and 1: half of the usual mean, as in the paper's code."""

    bend = 1 / 8

    def link(self, mean: float) -> float:
        return math.log(mean / (1 - mean))

    def value(self, eta: Array, y: Array) -> float:
        return float((np.logaddexp(eta, 0.0) - y * eta).mean() / 2)

    def slope(self, eta: Array, y: Array) -> Array:
        return (0.5 * np.tanh(eta / 2) + 0.5 - y) / (2 * len(y))


LOSSES: dict[str, Loss] = {"linear": Squared(), "logistic": Logistic()}
