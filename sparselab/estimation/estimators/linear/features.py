"""Features of columns: a preconditioner S, its own way back, and the norm that a parameter has in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VANISHING = 1e-12  # norm of a feature, as a share of the longest, below which it is left out


@dataclass(frozen=True)
class Preconditioner:
    """S: (d, m) features X S with |X S e_j| = sqrt(N). lift: (m, d) with S lift w = w, up to columns on which X vanishes.

    ``name`` says which routine made it.
    """

    name: str
    S: np.ndarray
    lift: np.ndarray

    @property
    def plain(self) -> bool:
        """True where each feature is a column: then the Lasso in it is the ordinary one."""
        return bool(((self.S != 0).sum(0) <= 1).all())

    def of(self, X: np.ndarray) -> np.ndarray:
        """(N, m): the features of ``X`` (N, d)."""
        return X @ self.S

    def least(self, w: np.ndarray) -> np.ndarray:
        """(m,) the v of least sum |v_j| with S v = w: one that a square S decides, else from a linear program.

        Never longer than ``lift @ w``, which is the answer where the program has none.
        """
        own = self.lift @ w
        d, m = self.S.shape
        if m <= d:
            return own
        from scipy.optimize import linprog

        found = linprog(np.ones(2 * m), A_eq=np.hstack([self.S, -self.S]), b_eq=w, method="highs")
        if not found.success or found.fun >= np.abs(own).sum():
            return own
        return found.x[:m] - found.x[m:]


def scaled(name: str, X: np.ndarray, S: np.ndarray, lift: np.ndarray) -> Preconditioner:
    """The preconditioner of raw features ``S``, scaled to norm sqrt(N) on ``X``; those that vanish on X are left out.

    Scaling comes last: differences of columns that had been scaled before would be others.

    Args:
        name: of the preconditioner
        X: (n, d) float64
        S: (d, m), raw features as they combine columns
        lift: (m, d), columns as they combine raw features
    """
    norms = np.linalg.norm(X @ S, axis=0) / np.sqrt(len(X))
    kept = norms > VANISHING * norms.max(initial=0.0)
    return Preconditioner(name, S[:, kept] / norms[kept], lift[kept] * norms[kept][:, None])
