"""Scored designs to learn from, hidden ones, and the true score of any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
PERCENTILES = (100, 80, 50)


@dataclass(frozen=True)
class DesignSample:
    """X (n, features), y (n,): the designs that are shown, with their scores. hidden, hidden_y: the better ones.

    canonical: (k, features) -> (k, features) what designs of any numbers stand for: the code of the sequence that they are
    read as, the nearest point of the box. score: (k, features) -> (k,) true scores of canonical designs, in units of y.
    low, high: the least and the greatest score of shown and hidden designs together.
    """

    X: Array
    y: Array
    hidden: Array
    hidden_y: Array
    canonical: Callable[[Array], Array]
    score: Callable[[Array], Array]
    low: float
    high: float

    def normalised(self, scores: Array) -> Array:
        """(y - low) / (high - low): 1 is the best of all designs, which a design that none of them has may exceed."""
        return np.asarray((scores - self.low) / (self.high - self.low))

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of an offline optimiser (``designs_``, ``starts_``, ``surrogate_``) by the truth.

        ``p100``, ``p80``, ``p50``: percentiles of the designs' normalised scores (an actual design's: the nearest). ``start``:
        the best shown one. ``sharpness_data``, ``sharpness_hidden``, ``sharpness_designs``: |grad G| of the surrogate on the
        shown, the hidden and the final designs. ``over``: mean prediction minus mean truth of the final designs, normalised.
        ``error_hidden``: mean square error on hidden designs over the shown scores' variance. ``distinct``: different designs.
        """
        designs, surrogate = self.canonical(fitted.designs_), fitted.surrogate_
        found = self.normalised(self.score(designs))
        guessed = self.normalised(surrogate.predict(designs))
        off = surrogate.predict(self.hidden) - self.hidden_y
        return {
            **{f"p{q}": float(np.percentile(found, q, method="nearest")) for q in PERCENTILES},
            "start": float(self.normalised(self.y).max()),
            "sharpness_data": surrogate.sharpness_on(self.X),
            "sharpness_hidden": surrogate.sharpness_on(self.hidden),
            "sharpness_designs": surrogate.sharpness_on(designs),
            "over": float((guessed - found).mean()),
            "error_hidden": float((off**2).mean() / self.y.var()),
            "distinct": float(len(np.unique(designs, axis=0))),
        }


def worse(scores: Array, percentile: float) -> Array:
    """(n,) True for designs that are shown: those at or below this percentile of all scores."""
    return np.asarray(scores <= np.percentile(scores, percentile))
