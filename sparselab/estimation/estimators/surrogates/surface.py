"""A fitted surrogate as a surface to climb, in standardised coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparselab.estimation.estimators.surrogates.network import Network

Array = np.ndarray
CHUNK = 4096  # rows in memory at once


@dataclass(frozen=True)
class Surface:
    """network: the shapes of every member. members: (members, parameters)."""

    network: Network
    members: Array

    def astype(self, dtype: type) -> Surface:
        return Surface(self.network, self.members.astype(dtype))

    def values(self, Z: Array) -> Array:
        """(members, n) predicted means at the rows of ``Z``."""
        found = np.empty((len(self.members), len(Z)), self.members.dtype)
        for start in range(0, len(Z), CHUNK):
            rows = Z[start : start + CHUNK].astype(self.members.dtype, copy=False)
            for number, vector in enumerate(self.members):
                found[number, start : start + CHUNK] = self.network.forward(vector, rows)[-1][:, 0]
        return found

    def mean(self, Z: Array) -> Array:
        """(n,) the mean over members."""
        return self.values(Z).mean(0)

    def climbs(self, Z: Array, aggregate: str = "mean") -> Array:
        """(n, inputs) the gradient in the inputs of the members' mean, or of the least of them (``min``), row by row."""
        Z = Z.astype(self.members.dtype, copy=False)
        passes = [self.network.forward(vector, Z) for vector in self.members]
        if aggregate == "min":
            means = np.stack([seen[-1][:, 0] for seen in passes])
            shares = (np.arange(len(means))[:, None] == means.argmin(0)).astype(Z.dtype)
        else:
            shares = np.full((len(passes), len(Z)), 1 / len(passes), Z.dtype)
        found = np.zeros_like(Z)
        for vector, seen, share in zip(self.members, passes, shares, strict=True):
            slopes = np.zeros_like(seen[-1])
            slopes[:, 0] = share
            found += self.network.inputs(vector, seen, slopes)
        return found

    def sharpness(self, Z: Array) -> float:
        """|grad G|: of the mean prediction over all rows, in a member's parameters; the mean over members."""
        norms = []
        for vector in self.members:
            total = np.zeros_like(vector)
            for start in range(0, len(Z), CHUNK):
                total += mean_gradient(self.network, vector, Z[start : start + CHUNK].astype(vector.dtype), len(Z))
            norms.append(float(np.sqrt(np.dot(total, total))))
        return float(np.mean(norms))


def mean_gradient(network: Network, vector: Array, X: Array, of: int, seen: list[Array] | None = None) -> Array:
    """The gradient in the parameters of the sum of the predictions over ``of``. seen: the forward pass, where known."""
    seen = network.forward(vector, X) if seen is None else seen
    slopes = np.zeros_like(seen[-1])
    slopes[:, 0] = 1 / of
    return network.backward(vector, seen, slopes, np.empty_like(vector))
