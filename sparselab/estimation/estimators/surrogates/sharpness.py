"""The penalty on a surrogate's sharpness (Dao et al. 2025, arXiv 2503.04242).

Sharpness of a surrogate g with parameters b on a batch: the most by which its mean prediction G(b) can change when b moves
by rho, to first order R(b) = rho |grad G(b)|. It is the gradient of the prediction, not of the loss.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


class Sharpness:
    """lam times the gradient of R by a finite difference, and the dual step that holds R at eps.

    lam: weight of the penalty, or its first value. eta: step of the dual ascent; 0 keeps lam fixed. eps: the budget of R.
    rho: radius of R. r: length of the difference. clip: whether lam stops at 0 (the released code lets it go below).
    """

    def __init__(
        self, lam: float, eta: float = 0.0, eps: float = 0.1, rho: float = 0.05, r: float = 0.05, clip: bool = False
    ):
        self.lam, self.eta, self.eps, self.rho, self.r, self.clip = lam, eta, eps, rho, r, clip
        self.norm = 0.0

    def add(self, gradient: Array, vector: Array, u: Array, mean_gradient: Callable[[Array], Array]) -> None:
        """Add lam (rho / r) (u' - u) to ``gradient`` in place; then lam takes its dual step.

        u: grad G at ``vector``. mean_gradient: gives it at other parameters. u' is taken at vector + r u / |u|, a new array:
        ``vector`` itself is never moved. Where u is zero there is no direction, and nothing is added.
        """
        self.norm = float(np.sqrt(np.dot(u, u)))
        if self.norm > 0:
            moved = mean_gradient(vector + np.asarray(self.r / self.norm, vector.dtype) * u)
            gradient += np.asarray(self.lam * self.rho / self.r, gradient.dtype) * (moved - u)
        self.lam += self.eta * (self.rho * self.norm - self.eps)
        if self.clip:
            self.lam = max(self.lam, 0.0)
