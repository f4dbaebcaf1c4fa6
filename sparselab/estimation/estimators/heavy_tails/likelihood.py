"""Joint t (or Gaussian) likelihood of grouped rows: y_i = X_i b + Z_i u_i + e_i with scatter sigma² (I + Z_i G Z_i')."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

Array = np.ndarray


@dataclass(frozen=True)
class Grouped:
    """Rows in groups, sorted by group, with sums over each group.

    A: (n, 1 + p), its first column ones. Z: (n, k). starts: the first row of each of the m groups. sizes: (m,).
    ZZ: (m, k, k) Z_i' Z_i.
    """

    A: Array
    y: Array
    Z: Array
    starts: Array
    sizes: Array
    ZZ: Array

    @classmethod
    def of(cls, A: Array, y: Array, Z: Array, groups: Array) -> Grouped:
        """Sort the rows by ``groups``, (n,) whole numbers 0, 1, … ."""
        order = np.argsort(groups, kind="stable")
        A, y, Z = A[order], y[order], Z[order]
        sizes = np.bincount(groups)
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        return cls(A, y, Z, starts, sizes, np.add.reduceat(Z[:, :, None] * Z[:, None, :], starts, axis=0))

    def sums(self, rows: Array) -> Array:
        """Return the sums of ``rows``, (n, …), over each group: (m, …)."""
        return np.add.reduceat(rows, self.starts, axis=0)

    def spread(self, values: Array) -> Array:
        """(n, …) the value of each row's group."""
        return np.repeat(values, self.sizes, axis=0)


@dataclass(frozen=True)
class Likelihood:
    """Mean negative log-likelihood of a row, of theta = (b_0, b (p), log sigma, log of G's diagonal (k)).

    nu: degrees of freedom, the same for every group; inf: Gaussian.
    """

    rows: Grouped
    nu: float

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Return the value, and the gradient by theta, (1 + p + 1 + k,)."""
        data, n = self.rows, len(self.rows.y)
        width = data.A.shape[1]
        variance, g = math.exp(2 * theta[width]), np.exp(theta[width + 1 :])
        size, nu = data.sizes.astype(float), self.nu
        r = data.y - data.A @ theta[:width]
        root = np.sqrt(g)
        M = np.eye(len(g)) + root[:, None] * data.ZZ * root
        zr = data.sums(data.Z * r[:, None])  # (m, k) Z' r
        inner = root * np.linalg.solve(M, (root * zr)[:, :, None])[:, :, 0]  # (m, k) the random effects
        Vr = r - (data.Z * data.spread(inner)).sum(1)
        Q = data.sums(r * Vr)
        if math.isinf(nu):
            weight, core = np.full_like(Q, 1 / variance), Q / (2 * variance)
            constant = size / 2 * math.log(2 * math.pi)
        else:
            weight = (nu + size) / (nu * variance + Q)
            core = (nu + size) / 2 * np.log1p(Q / (nu * variance))
            constant = gammaln(nu / 2) - gammaln((nu + size) / 2) + size / 2 * math.log(nu * math.pi)
        total = core + np.linalg.slogdet(M)[1] / 2 + size * theta[width] + constant
        zVr = zr - np.einsum("mkl,ml->mk", data.ZZ, inner)
        half = np.linalg.solve(M, root[:, None] * data.ZZ)
        zVz = np.einsum("mkk->mk", data.ZZ - (data.ZZ * root) @ half)
        gradient = np.concatenate(
            [
                -data.A.T @ (data.spread(weight) * Vr),
                [float((size - weight * Q).sum())],
                (g * (zVz - weight[:, None] * zVr**2)).sum(0) / 2,
            ]
        )
        return float(total.sum()) / n, gradient / n

    def effects(self, theta: Array) -> Array:
        """(m, k) predicted random effects, G Z' V⁻¹ r."""
        data, width = self.rows, self.rows.A.shape[1]
        g = np.exp(theta[width + 1 :])
        r = data.y - data.A @ theta[:width]
        M = np.eye(len(g)) + np.sqrt(g)[:, None] * data.ZZ * np.sqrt(g)
        return np.sqrt(g) * np.linalg.solve(M, (np.sqrt(g) * data.sums(data.Z * r[:, None]))[:, :, None])[:, :, 0]
