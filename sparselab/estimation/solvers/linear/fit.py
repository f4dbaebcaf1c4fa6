"""Estimates of theta from some rewards; each takes (features (n, d), rewards (n,), weights (n,)) and gives (d,)."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def least_squares(features: np.ndarray, rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares; of several solutions the shortest.

    Args:
        features: (n, d), a row for each action that was tried
        rewards: (n,)
        weights: (n,), at least 0, summing to 1

    Returns:
        (d,) float64.
    """
    root = np.sqrt(weights)
    return np.linalg.lstsq(root[:, None] * features, root * rewards, rcond=None)[0]


def lasso(features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    """Minimise sum_i w_i (r_i - <a_i, theta>)^2 / 2 + penalty |theta|_1.

    Args:
        features: (n, d), a row for each action that was tried
        rewards: (n,)
        weights: (n,), at least 0, summing to 1
        penalty: in units of a reward

    Returns:
        (d,) float64.
    """
    from sklearn.linear_model import Lasso

    if not rewards.any():
        return np.zeros(features.shape[1])
    root = np.sqrt(weights * len(weights))  # scikit-learn divides the squares by their number
    model = Lasso(alpha=penalty, fit_intercept=False, max_iter=100_000, tol=1e-6)
    return np.asarray(model.fit(root[:, None] * features, root * rewards).coef_)


def lasso_penalty(features: np.ndarray, weights: np.ndarray, eps: float) -> float:
    """The smallest penalty that rewards of 0 +- eps cannot overcome: eps * max_j sum_i w_i |a_ij|.

    Args:
        features: (n, d), a row for each action that was tried
        weights: (n,), at least 0, summing to 1
        eps: largest error of a reward

    Returns:
        In units of a reward.
    """
    return eps * float((weights @ np.abs(features)).max())


def best_subset(features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, s: int) -> np.ndarray:
    """Least squares on the s coordinates that fit best, by trying all of them; the first of ties.

    Args:
        features: (n, d), a row for each action that was tried
        rewards: (n,)
        weights: (n,), at least 0, summing to 1
        s: non-zeros, at least 1

    Returns:
        (d,) float64 with at most s non-zeros.
    """
    weighted = weights[:, None] * features
    gram, context = features.T @ weighted, weighted.T @ rewards
    supports = np.array(list(combinations(range(features.shape[1]), s)))
    blocks = gram[supports[:, :, None], supports[:, None, :]] + 1e-12 * np.eye(s)
    moments = context[supports]
    solutions = np.linalg.solve(blocks, moments[..., None])[..., 0]
    explained = np.einsum("ij,ij->i", moments, solutions)
    best = int(np.argmax(np.round(explained, 12)))
    theta = np.zeros(features.shape[1])
    theta[supports[best]] = solutions[best]
    return theta
