"""SCAD, MCP and l1 as lam |b| + q(b) with a smooth concave q (Yang, Asgharian & Bhatnagar, arXiv 2009.10629)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

Array = np.ndarray


def soft(z: Array, level: float) -> Array:
    """z moved towards 0 by ``level``, and 0 where it is closer than that: the proximal map of level |b|."""
    return np.sign(z) * np.maximum(np.abs(z) - level, 0.0)


def _shrunk(z: float, level: float) -> float:
    """Return :func:`soft` of one number, without the cost of an array."""
    return math.copysign(max(abs(z) - level, 0.0), z)


@dataclass(frozen=True)
class Penalty(ABC):
    """p(b) = lam |b| + q(b), entry by entry.

    lam:       the slope at 0.
    shape:     a of SCAD, gamma of MCP: how far the penalty grows, in units of lam. l1 does not look at it.
    curvature: the largest |q''|. A smooth loss of curvature L plus q has a gradient of Lipschitz constant max(L, curvature).
    """

    lam: float
    shape: float = 0.0
    least_shape: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def curvature(self) -> float: ...

    @abstractmethod
    def value(self, b: Array) -> Array:
        """Return p(b)."""

    @abstractmethod
    def concave_slope(self, b: Array) -> Array:
        """Return q'(b)."""

    @abstractmethod
    def threshold(self, z: float) -> float:
        """Return argmin_b (b - z)²/2 + p(b) for one z: what coordinate descent does to a column with mean square 1."""

    def concave(self, b: Array) -> Array:
        """Return q(b)."""
        return self.value(b) - self.lam * np.abs(b)


class L1(Penalty):
    """lam |b|."""

    @property
    def curvature(self) -> float:
        return 0.0

    def value(self, b: Array) -> Array:
        return self.lam * np.abs(b)

    def concave_slope(self, b: Array) -> Array:
        return np.zeros_like(b)

    def threshold(self, z: float) -> float:
        return _shrunk(z, self.lam)


class SCAD(Penalty):
    """Smoothly clipped absolute deviation (Fan & Li 2001): l1 up to lam, flat from a lam on, quadratic between; a > 2."""

    least_shape = 2.0

    @property
    def curvature(self) -> float:
        return 1 / (self.shape - 1)

    def value(self, b: Array) -> Array:
        size, lam, a = np.abs(b), self.lam, self.shape
        bent = (2 * a * lam * size - size**2 - lam**2) / (2 * (a - 1))
        return np.where(size <= lam, lam * size, np.where(size < a * lam, bent, lam**2 * (a + 1) / 2))

    def concave_slope(self, b: Array) -> Array:
        size, lam, a = np.abs(b), self.lam, self.shape
        return -np.sign(b) * np.clip((size - lam) / (a - 1), 0.0, lam)

    def threshold(self, z: float) -> float:
        size, lam, a = abs(z), self.lam, self.shape
        if size <= 2 * lam:
            return _shrunk(z, lam)
        return _shrunk(z, a * lam / (a - 1)) * (a - 1) / (a - 2) if size <= a * lam else z


class MCP(Penalty):
    """Minimax concave penalty (Zhang 2010): lam |b| - b²/(2 gamma) up to gamma lam, flat beyond; gamma > 1."""

    least_shape = 1.0

    @property
    def curvature(self) -> float:
        return 1 / self.shape

    def value(self, b: Array) -> Array:
        size, lam, gamma = np.abs(b), self.lam, self.shape
        return np.where(size <= gamma * lam, lam * size - size**2 / (2 * gamma), gamma * lam**2 / 2)

    def concave_slope(self, b: Array) -> Array:
        return -np.sign(b) * np.minimum(np.abs(b) / self.shape, self.lam)

    def threshold(self, z: float) -> float:
        lam, gamma = self.lam, self.shape
        return _shrunk(z, lam) * gamma / (gamma - 1) if abs(z) <= gamma * lam else z


PENALTIES: dict[str, type[Penalty]] = {"scad": SCAD, "mcp": MCP, "l1": L1}
SHAPES = {"scad": "a", "mcp": "gamma"}  # the option that is a penalty's shape


def penalty_of(name: str, lam: float, a: float, gamma: float) -> Penalty:
    """The penalty of that name."""
    return PENALTIES[name](lam, {"a": a, "gamma": gamma}.get(SHAPES.get(name, ""), 0.0))
