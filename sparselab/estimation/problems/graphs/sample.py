"""Samples of a linear structural equation model, with the graph behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparselab.estimation.problems.graphs.compare import compare


@dataclass(frozen=True)
class GraphSample:
    """X: (n, d) samples. graph: (d, d), the true weights (or 0/1). scales: (d,) true noise scales, where they are known."""

    X: np.ndarray
    graph: np.ndarray
    scales: np.ndarray | None = None
    y: None = None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of ``fitted.adjacency_`` (see :func:`~sparselab.estimation.problems.graphs.compare.compare`).

        ``sparsity``: share of the d(d-1) possible edges that are not there. Where the truth is known, ``noise_variance``:
        its mean over nodes, and for an estimator with ``noise_scale_`` their relative error, ``noise_error``:
        sum |found - true| / sum true.
        """
        scores = compare(self.graph, fitted.adjacency_)
        d = len(self.graph)
        if self.scales is not None:
            scores["noise_variance"] = float((self.scales**2).mean())
        scores["sparsity"] = 1 - scores["edges"] / (d * (d - 1))
        found = getattr(fitted, "noise_scale_", None)
        if found is not None and self.scales is not None:
            found = np.broadcast_to(found, self.scales.shape)
            scores["noise_error"] = float(np.abs(found - self.scales).sum() / self.scales.sum())
        return scores
