"""The law of a planted sparse linear model, as far as it can be written down [no numpy]."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """y = <x, theta> + zeta with a k-sparse theta of length 1 and entries of equal size.

    design: ``normal`` (x normal, covariance correlation^|i-j|) or ``signs`` (independent signs, so |x| = sqrt(d)).
    noise: standard deviation of the normal zeta.
    """

    design: str
    d: int
    k: int
    noise: float
    correlation: float = 0.0

    @property
    def largest(self) -> float:
        """A bound on the largest eigenvalue of the covariance."""
        return (1 + self.correlation) / (1 - self.correlation)

    @property
    def smallest(self) -> float:
        """A bound on the smallest eigenvalue of the covariance."""
        return (1 - self.correlation) / (1 + self.correlation)

    def escape(self, n: int, radius: float | None, tau: float | None) -> float:
        """A bound on the probability that of ``n`` rows any has |x| > ``radius`` or |y| > ``tau`` (None: no limit)."""
        return min(1.0, n * (self._far(radius) + self._high(tau)))

    def _far(self, radius: float | None) -> float:
        if radius is None:
            return 0.0
        if self.design == "signs":
            return 0.0 if radius >= math.sqrt(self.d) * (1 - 1e-12) else 1.0
        times = radius**2 / self.largest / self.d  # Chernoff's bound for a chi-square of d degrees of freedom
        return 1.0 if times <= 1 else math.exp(-(times - 1 - math.log(times)) * self.d / 2)

    def _high(self, tau: float | None) -> float:
        if tau is None:
            return 0.0
        if self.design == "signs":  # |<x, theta>| is at most the sum of the entries' sizes
            room = tau - math.sqrt(self.k)
            return 1.0 if room <= 0 else math.erfc(room / self.noise / math.sqrt(2)) if self.noise else 0.0
        return math.erfc(tau / math.sqrt(2 * (self.largest + self.noise**2)))
