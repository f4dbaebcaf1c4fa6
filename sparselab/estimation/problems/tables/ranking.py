"""Columns of which some are the ones to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class RankingSample:
    """X: (n, p), y: (n,), truth: (p,) True for the columns that y is made of."""

    X: np.ndarray
    y: np.ndarray
    truth: np.ndarray

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of a selector: ``auroc`` of its ``scores_`` against the truth, ``ppv`` and ``recall`` of what is kept.

        ``relevant``: how many there are to find. ``sparsity``: share of the columns that are dropped.
        """
        kept = fitted.get_support()
        return {
            "auroc": float(roc_auc_score(self.truth, fitted.scores_)),
            "ppv": float(self.truth[kept].mean()) if kept.any() else 1.0,
            "recall": float(kept[self.truth].mean()),
            "relevant": float(self.truth.sum()),
            "sparsity": float(1 - kept.mean()),
        }
