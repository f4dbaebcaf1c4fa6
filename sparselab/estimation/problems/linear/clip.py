"""Limits on what one user can contribute."""

from __future__ import annotations

import numpy as np


def shrink(X: np.ndarray, radius: float) -> np.ndarray:
    """Rows of ``X`` (n, d) with a norm above ``radius`` scaled to that norm; directions stay. No copy where none has."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))
    if not (norms > radius).any():
        return X
    return X * np.minimum(1.0, radius / np.maximum(norms, radius))[:, None]


def limit(X: np.ndarray, y: np.ndarray, radius: float | None, tau: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Shrink rows to norm ``radius`` and cut responses to [-tau, tau].

    Args:
        X: (n, d)
        y: (n,)
        radius: largest norm of a row; None: any
        tau: largest size of a response; None: any

    Returns:
        ((n, d), (n,)).
    """
    return X if radius is None else shrink(X, radius), y if tau is None else np.clip(y, -tau, tau)
