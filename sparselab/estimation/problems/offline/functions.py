"""Test functions with a known greatest value, in any number of dimensions (Surjanovic & Bingham, Virtual Library)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def styblinski_tang(X: Array) -> Array:
    """-½ sum(x⁴ - 16 x² + 5 x) / dimensions; at most 39.16617 (every x = -2.903534). Usual box: [-5, 5]."""
    return np.asarray(-0.5 * (X**4 - 16 * X**2 + 5 * X).mean(-1))


def rastrigin(X: Array) -> Array:
    """-sum(x² - 10 cos 2πx + 10) / dimensions; at most 0 (x = 0). Usual box: [-5.12, 5.12]."""
    return np.asarray(-(X**2 - 10 * np.cos(2 * np.pi * X) + 10).mean(-1))


def ackley(X: Array) -> Array:
    """20 exp(-0.2 |x| / sqrt(d)) + exp(mean cos 2πx) - 20 - e; at most 0 (x = 0). Usual box: [-32.768, 32.768]."""
    bowl = 20 * np.exp(-0.2 * np.sqrt((X**2).mean(-1)))
    return np.asarray(bowl + np.exp(np.cos(2 * np.pi * X).mean(-1)) - 20 - np.e)


FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "styblinski_tang": (styblinski_tang, 5.0),
    "rastrigin": (rastrigin, 5.12),
    "ackley": (ackley, 32.768),
}
"""Each function, to be maximised, with the half width of its box."""
