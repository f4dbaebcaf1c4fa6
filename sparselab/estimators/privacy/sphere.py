"""The mechanism of Duchi, Jordan & Wainwright (2018, JASA) for vectors of bounded l2 norm: pure epsilon, unbiased.

A message is a point of the sphere of radius B, whatever the vector was. First the vector's direction is rounded: v becomes
G v / |v| with probability 1/2 + |v| / (2 G), otherwise minus that. Then a uniform point of the half-sphere around the
rounded vector is sent with probability e^eps / (1 + e^eps), and one of the other half-sphere otherwise. The density of a
message is one of two values whose ratio is e^eps (mixed over the rounding), so no two vectors differ by more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def spread(d: int) -> float:
    """sqrt(pi) Gamma((d+1)/2) / Gamma(d/2): one over the mean of |z_1| for z uniform on the unit sphere in d dimensions."""
    return math.sqrt(math.pi) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))


@dataclass(frozen=True)
class Sphere:
    """The mechanism for vectors of ``d`` entries with l2 norm at most ``bound``."""

    d: int
    bound: float
    epsilon: float

    @property
    def radius(self) -> float:
        """B = G (e^eps + 1) / (e^eps - 1) sqrt(pi) Gamma((d+1)/2) / Gamma(d/2), which makes messages unbiased."""
        return self.bound / math.tanh(self.epsilon / 2) * spread(self.d)

    @property
    def honest(self) -> float:
        """The probability e^eps / (1 + e^eps) of the rounded vector's own half-sphere."""
        return 1 / (1 + math.exp(-self.epsilon))

    def privatise(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A message (n, d) for each of ``vectors`` (n, d). ValueError where one is longer than the bound."""
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if (norms > self.bound * (1 + 1e-9)).any():
            raise ValueError(f"a vector of length {norms.max():g} is above the bound {self.bound:g}: clip it first")
        directions = vectors.copy()
        directions[norms == 0, 0] = 1.0  # rounded to either side with probability 1/2: any direction will do
        kept = rng.random(len(vectors)) < 0.5 + norms / (2 * self.bound)
        own = rng.random(len(vectors)) < self.honest
        messages = rng.standard_normal(vectors.shape)
        here = np.einsum("ij,ij->i", messages, directions) >= 0
        messages *= (np.where(here == (kept == own), 1.0, -1.0) / np.sqrt(np.einsum("ij,ij->i", messages, messages)))[
            :, None
        ]
        return messages * self.radius

    def density(self, message: np.ndarray, vector: np.ndarray) -> float:
        """The density of a message, relative to the uniform one on the sphere, given the vector."""
        length = float(np.linalg.norm(vector))
        if length == 0:
            return 1.0
        toward = float(message @ vector) >= 0
        kept = 0.5 + length / (2 * self.bound)
        own = kept * self.honest + (1 - kept) * (1 - self.honest)  # of the half-sphere around the vector
        return 2 * (own if toward else 1 - own)
