"""The choice of queries: an approximately optimal design (Kiefer & Wolfowitz), few actions whose least squares predicts all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TINY = 1e-9  # a direction in which all actions are shorter than this is none


@dataclass(frozen=True)
class Design:
    """actions: (n,) distinct, in the order in which they were chosen. weights: (n,) summing to 1.

    spread: max over actions of |a|^2 in the inverse of sum(weights a a^T), at least the rank; rank: of the features.
    """

    actions: np.ndarray
    weights: np.ndarray
    spread: float
    rank: int


def basis_of(features: np.ndarray) -> list[int]:
    """Actions that span the features: each the longest, once what the earlier ones span is taken away (first of ties)."""
    rest, chosen = features.copy(), []
    for _ in range(features.shape[1]):
        lengths = np.einsum("ij,ij->i", rest, rest)
        best = int(np.argmax(np.round(lengths, 12)))
        if lengths[best] < TINY:
            break
        chosen.append(best)
        direction = rest[best] / np.sqrt(lengths[best])
        rest -= np.outer(rest @ direction, direction)
    return chosen


def optimal_design(features: np.ndarray, factor: float = 2.0, limit: int = 10_000) -> Design:
    """Frank-Wolfe with exact steps from a basis, until max |a|^2 <= factor * rank (at least 1; 2 is what theory uses).

    Args:
        features: (actions, d)
        factor: where to stop, in ranks
        limit: most steps
    """
    chosen = basis_of(features)
    rank = len(chosen)
    if rank < features.shape[1]:  # work inside the span
        span = np.linalg.svd(features[chosen], full_matrices=False)[2]
        features = features @ span.T
    weights = dict.fromkeys(chosen, 1 / rank)
    for _ in range(limit):
        actions = np.array(list(weights))
        share = np.array([weights[a] for a in actions])
        gram = features[actions].T @ (share[:, None] * features[actions])
        lengths = np.einsum("ij,ij->i", features @ np.linalg.inv(gram), features)
        worst = int(np.argmax(lengths))
        longest = float(lengths[worst])
        if longest <= factor * rank * (1 + 1e-12):
            break
        step = (longest / rank - 1) / (longest - 1)
        weights = {action: (1 - step) * weight for action, weight in weights.items()}
        weights[worst] = weights.get(worst, 0.0) + step
    return Design(actions, share, longest, rank)
