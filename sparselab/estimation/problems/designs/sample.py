"""A fixed design with a planted parameter, and what a fit is worth there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DesignSample:
    """X: (N, columns given), y: (N,) = ``design`` @ ``w`` + ``noise``.

    design: (N, d) all columns. w: (d,) the parameter. noise: (N,). given: the columns of the design that X has.
    condition: of the covariance of a row, or None where nobody knows it.
    """

    X: np.ndarray
    y: np.ndarray
    design: np.ndarray
    w: np.ndarray
    noise: np.ndarray
    given: np.ndarray
    condition: float | None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of a fit; the first is the paper's.

        ``error``: |X w - prediction|^2 / N, in sample and without noise (the signal has 1). ``best_error``: the least along the
        fit's path of penalties, which only an oracle finds; without a path: ``error``. ``l1``: sum of |w_j| |X_j| / sqrt(N).
        ``support_f1``: of the places of non-zeros; ``sparsity``: share of zeros found. ``samples``, ``features``,
        ``nonzeros``, ``condition``: of the draw, for axes. Of a fit with features: see :meth:`_of_features`.
        """
        coef, true = np.zeros(len(self.w)), self.design @ self.w
        coef[self.given] = np.ravel(fitted.coef_)
        error = float(((true - fitted.predict(self.X)) ** 2).mean())
        path = getattr(fitted, "coef_path_", None)
        errors = [] if path is None else ((true[:, None] - self.X @ path.T) ** 2).mean(0).tolist()
        both, either = ((coef != 0) & (self.w != 0)).sum(), (coef != 0).sum() + (self.w != 0).sum()
        sizes = np.linalg.norm(self.design, axis=0) / np.sqrt(len(self.y))
        known = {} if self.condition is None else {"condition": self.condition}
        return {
            "error": error,
            "best_error": min([error, *errors]),
            "l1": float(np.abs(self.w) @ sizes),
            "support_f1": float(2 * both / either),
            "sparsity": float((coef == 0).mean()),
            "samples": float(len(self.y)),
            "features": float(len(self.w)),
            "nonzeros": float((self.w != 0).sum()),
            **known,
            **self._of_features(fitted, error),
        }

    def _of_features(self, fitted: Any, error: float) -> dict[str, float]:
        """Scores of a Lasso in features X S, whose error is at most 4 lam |v|_1 with S v = w if lam >= |(X S)^T noise|_max / N.

        ``l1_features``: the least |v|_1. ``bound``: 4 lam |v|_1. ``event``: 1 where lam is large enough. ``of_bound``: the
        error over the bound, on that event (0 outside: nothing is promised there).
        """
        features = getattr(fitted, "preconditioner_", None)
        if features is None:
            return {}
        size = float(np.abs(features.least(self.w[self.given])).sum())
        needed = np.abs(features.of(self.X).T @ self.noise).max(initial=0.0) / len(self.y)
        bound, event = 4 * fitted.lam_ * size, fitted.lam_ >= needed
        return {
            "l1_features": size,
            "bound": bound,
            "event": float(event),
            "of_bound": error / bound if event and bound else 0.0,
        }
