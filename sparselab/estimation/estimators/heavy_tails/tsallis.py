"""Entropic index q and degrees of freedom: the q-Gaussian of 1 < q is a Student t, and q = 1 a Gaussian [no numpy].

Maximising Tsallis entropy under a second moment gives a density proportional to [1 + (q - 1) b x'S⁻¹x]^(-1 / (q - 1)).
"""

from __future__ import annotations

import math


def degrees(q: float, m: int = 1) -> float:
    """Return the degrees of freedom of the t distribution in ``m`` dimensions with index ``q``: 2 / (q - 1) - m; inf at q = 1.

    ValueError outside of 1 <= q < 1 + 2 / m, where there is no such distribution.
    """
    if not 1 <= q < 1 + 2 / m:
        raise ValueError(f"q={q!r}: write a number from 1 (Gaussian) to below {1 + 2 / m:g}")
    return math.inf if q == 1 else 2 / (q - 1) - m


def index(nu: float, m: int = 1) -> float:
    """Return the index of the t distribution in ``m`` dimensions with ``nu`` degrees of freedom, 1 + 2 / (nu + m)."""
    return 1 + 2 / (nu + m)
