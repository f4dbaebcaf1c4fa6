"""How many iterations a method needs to come close to the best objective that the first-order methods find."""

from __future__ import annotations

import math
from typing import Any

from sparselab.estimation.estimators.concave.descent import descend

RIVALS = ("ag", "ag_original", "prox")  # the best is theirs, as in the paper's simulations
MOST = 5000  # iterations of a rival, as there


def race(fitted: Any, start: Any, within: float) -> dict[str, float]:
    """Score a fitted estimator with one lam by its objectives against those of all RIVALS from the same ``start``.

    ``iterations_to``: the first iterate, 0 being the start, whose objective is within e^``within`` of the smallest that any
    rival had; ``max_iter`` where none is, and ``reached`` is then 0. ``behind``: how far above that smallest one it ended.
    """
    values = fitted.objectives_
    others = [
        min(descend(name, fitted.objective_, start, fitted.tol, MOST).values)
        for name in RIVALS
        if name != fitted.solver
    ]
    best = min([*others, values.min()] if fitted.solver in RIVALS else others)
    close = values <= best + math.exp(within)
    first = float(close.argmax()) if close.any() else float(fitted.max_iter)
    return {"iterations_to": first, "reached": float(close.any()), "behind": float(values[-1] - best)}
