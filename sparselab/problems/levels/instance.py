"""A two-level problem, min over x of f(x, y) with y among the minimisers of g(x, .), as functions of arrays."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Rows = tuple[Array, Array] | None  # row numbers of the upper and of the lower level's data; None: all


class Instance:
    """Base. ``x`` is (p,), ``y`` is (q,); f is the upper level, g the lower one.

    x0, y0:          where solvers begin.
    rows:            how many terms f and g are means of; 1 where they are no sums.
    upper_curvature: a bound on the Hessian of f in y.
    probes:          (n, p) points at which the penalty function is compared with the truth.

    Functions that subclasses do not write do not depend on that variable.
    """

    x0: Array
    y0: Array
    rows: tuple[int, int] = (1, 1)
    upper_curvature: float = 1.0
    probes: Array

    def lower_curvature(self, x: Array) -> float | Array:
        """A bound on the Hessian of g(x, .): a number, or (q,) where coordinates may have steps of their own."""
        raise NotImplementedError

    def upper(self, x: Array, y: Array, rows: Rows = None) -> float:
        """f(x, y)."""
        raise NotImplementedError

    def lower(self, x: Array, y: Array, rows: Rows = None) -> float:
        """g(x, y)."""
        raise NotImplementedError

    def upper_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        """The gradient of f in x."""
        return np.zeros_like(x)

    def upper_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        """The gradient of f in y."""
        return np.zeros_like(y)

    def lower_x(self, x: Array, y: Array, rows: Rows = None) -> Array:
        """The gradient of g in x."""
        return np.zeros_like(x)

    def lower_y(self, x: Array, y: Array, rows: Rows = None) -> Array:
        """The gradient of g in y."""
        raise NotImplementedError

    def lower_yy(self, x: Array, y: Array, v: Array) -> Array:
        """The Hessian of g in y, times ``v`` (q,)."""
        raise NotImplementedError

    def lower_xy(self, x: Array, y: Array, v: Array) -> Array:
        """The gradient in x of (the gradient of g in y) · ``v``: (p,)."""
        raise NotImplementedError

    def project_x(self, x: Array) -> Array:
        """The nearest point of X."""
        return x

    def project_y(self, y: Array) -> Array:
        """The nearest point of Y."""
        return y

    def value(self, x: Array) -> float | None:
        """psi(x), the least f over the minimisers of g(x, .), where it is known."""
        return None

    def gradient(self, x: Array) -> Array | None:
        """The gradient of psi, where it is known."""
        return None

    def penalised(self, x: Array, sigma: float) -> tuple[float, Array] | None:
        """psi_sigma(x) and its gradient, where they are known."""
        return None

    def judge(self, x: Array, z: Array) -> dict[str, float]:
        """Further scores of an answer: ``z`` minimises the lower level at ``x``."""
        return {}
