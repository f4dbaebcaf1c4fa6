"""Users of a linear model, with the parameter behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparselab.problems.linear.users import Moments, Users


@dataclass(frozen=True)
class LinearSample:
    """X: the users (responses included). theta: (d,) the true parameter."""

    X: Users | Moments
    theta: np.ndarray
    y: None = None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of ``fitted.coef_``, (d,).

        ``error``: |found - true|_2; ``error_max``: the largest of the entries; ``support_f1``: of the places of non-zeros;
        ``sparsity``: share of zeros found. ``users``, ``features``, ``nonzeros``: the draw's sizes, for axes.
        """
        found, true = fitted.coef_, self.theta
        off = np.abs(found - true)
        both, either = ((found != 0) & (true != 0)).sum(), (found != 0).sum() + (true != 0).sum()
        return {
            "error": float(np.linalg.norm(off)),
            "error_max": float(off.max()),
            "support_f1": float(2 * both / either) if either else 1.0,
            "sparsity": float((found == 0).mean()),
            "users": float(self.X.n),
            "features": float(self.X.d),
            "nonzeros": float((true != 0).sum()),
        }
