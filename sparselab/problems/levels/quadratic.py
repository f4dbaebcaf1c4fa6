"""Quadratic two-level problems whose hyper-objective and penalty function are known in closed form."""

from __future__ import annotations

import numpy as np

from sparselab.problems.levels.instance import Array, Instance, Rows


class Quadratic(Instance):
    """f = |y - c|² / 2 + ridge |x|² / 2 and g = (y - Bx)ᵀ H (y - Bx) / 2, with H = Q diag(eigenvalues) Qᵀ.

    Where eigenvalues vanish, g has many minimisers: Bx plus the kernel of H, among which f chooses.
    In the coordinates of Q, with t = Qᵀ(Bx - c): psi = ridge |x|² / 2 + sum over positive eigenvalues of t²/2, and
    psi_sigma is the same with each term of the sum times e / (e + sigma).
    """

    def __init__(
        self,
        basis: Array,
        eigenvalues: Array,
        matrix: Array,
        centre: Array,
        x0: Array,
        probes: Array,
        ridge: float = 0.0,
    ):
        self.basis, self.eigenvalues, self.matrix, self.centre = basis, eigenvalues, matrix, centre
        self.ridge = ridge
        self.hessian = (basis * eigenvalues) @ basis.T
        self.pull = self.hessian @ matrix  # Hessian times B
        self.x0, self.probes = x0, probes
        self.y0 = np.zeros(len(centre))

    def lower_curvature(self, x: Array) -> float:
        return float(self.eigenvalues.max())

    def upper(self, x: Array, y: Array, rows: Rows = None) -> float:
        return 0.5 * float(((y - self.centre) ** 2).sum()) + 0.5 * self.ridge * float(x @ x)

    def upper_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return self.ridge * x

    def upper_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return y - self.centre

    def lower(self, x: Array, y: Array, rows: Rows = None) -> float:
        apart = y - self.matrix @ x
        return 0.5 * float(apart @ self.hessian @ apart)

    def lower_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return self.pull.T @ (self.matrix @ x - y)

    def lower_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return self.hessian @ (y - self.matrix @ x)

    def lower_yy(self, x: Array, y: Array, v: Array) -> Array:
        return self.hessian @ v

    def lower_xy(self, x: Array, y: Array, v: Array) -> Array:
        return -self.pull.T @ v

    def value(self, x: Array) -> float:
        return self._sum(x, (self.eigenvalues > 0).astype(float))[0]

    def gradient(self, x: Array) -> Array:
        return self._sum(x, (self.eigenvalues > 0).astype(float))[1]

    def penalised(self, x: Array, sigma: float) -> tuple[float, Array]:
        return self._sum(x, self.eigenvalues / (self.eigenvalues + sigma))

    def _sum(self, x: Array, weights: Array) -> tuple[float, Array]:
        apart = self.basis.T @ (self.matrix @ x - self.centre)
        value = 0.5 * float(weights @ apart**2) + 0.5 * self.ridge * float(x @ x)
        return value, self.matrix.T @ (self.basis @ (weights * apart)) + self.ridge * x


class Box(Quadratic):
    """The same with H diagonal and the lower level kept in Y = [-1, 1]^q: its minimiser is Bx, cut to the box."""

    def __init__(self, eigenvalues: Array, matrix: Array, centre: Array, x0: Array, probes: Array, ridge: float = 0.0):
        super().__init__(np.eye(len(centre)), eigenvalues, matrix, centre, x0, probes, ridge)

    def project_y(self, y: Array) -> Array:
        return np.clip(y, -1, 1)

    def value(self, x: Array) -> float:
        return self.upper(x, self.project_y(self.matrix @ x))

    def gradient(self, x: Array) -> Array:
        free = self.matrix @ x
        inside = np.abs(free) < 1
        return self.matrix.T @ (inside * (free - self.centre)) + self.ridge * x

    def penalised(self, x: Array, sigma: float) -> tuple[float, Array]:
        e, free = self.eigenvalues, self.matrix @ x
        y, z = self.project_y((e * free + sigma * self.centre) / (e + sigma)), self.project_y(free)
        value = self.upper(x, y) + (self.lower(x, y) - self.lower(x, z)) / sigma
        return value, (self.lower_x(x, y) - self.lower_x(x, z)) / sigma + self.ridge * x


class Jump(Instance):
    """f = x² + y² and g = xy on [-1, 1]²: the minimiser of g jumps from 1 to -1 as x passes 0, where it is all of [-1, 1].

    psi = x² + 1 but psi(0) = 0; psi_sigma = x² + 1 from |x| = 2 sigma on, and x² - x²/(4 sigma²) + |x|/sigma before.
    """

    upper_curvature = 2.0

    def __init__(self, x0: Array, probes: Array):
        self.x0, self.y0, self.probes = x0, np.zeros(1), probes

    def lower_curvature(self, x: Array) -> float:
        return 0.0

    def upper(self, x: Array, y: Array, rows: Rows = None) -> float:
        return float(x[0] ** 2 + y[0] ** 2)

    def upper_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return 2 * x

    def upper_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return 2 * y

    def lower(self, x: Array, y: Array, rows: Rows = None) -> float:
        return float(x[0] * y[0])

    def lower_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return y.copy()

    def lower_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        return x.copy()

    def project_x(self, x: Array) -> Array:
        return np.clip(x, -1, 1)

    def project_y(self, y: Array) -> Array:
        return np.clip(y, -1, 1)

    def value(self, x: Array) -> float:
        return float(x[0] ** 2 + (x[0] != 0))

    def gradient(self, x: Array) -> Array:
        return 2 * x

    def penalised(self, x: Array, sigma: float) -> tuple[float, Array]:
        size, sign = abs(float(x[0])), np.sign(x)
        if size >= 2 * sigma:
            return size**2 + 1, 2 * x
        return size**2 - size**2 / (4 * sigma**2) + size / sigma, 2 * x - x / (2 * sigma**2) + sign / sigma
