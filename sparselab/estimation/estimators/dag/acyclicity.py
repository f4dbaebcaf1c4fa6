"""The log-determinant function of acyclicity (DAGMA, arXiv 2209.08037): zero exactly on acyclic weights in its domain."""

from __future__ import annotations

import numpy as np


def logdet(weights: np.ndarray, s: float) -> float:
    """H(W, s) = d log s - log det(sI - W∘W), for (d, d) weights inside the domain of M-matrices; inf outside."""
    d = len(weights)
    sign, value = np.linalg.slogdet(s * np.eye(d) - weights * weights)
    return d * float(np.log(s)) - float(value) if sign > 0 else np.inf


def logdet_gradient(weights: np.ndarray, s: float) -> np.ndarray:
    """The gradient of H in W: 2 W ∘ (sI - W∘W)^-T.

    Args:
        weights: (d, d) float64, W
        s: above the spectral radius of W∘W

    Returns:
        (d, d).
    """
    return 2 * weights * np.linalg.inv(s * np.eye(len(weights)) - weights * weights).T
