"""Features, rewards and parameters of the instances; each returns (features (K, d), rewards (K,), theta (d,))."""

from __future__ import annotations

import numpy as np

Instance = tuple[np.ndarray, np.ndarray, np.ndarray]
Rng = np.random.Generator


def sparse_theta(d: int, s: int, rng: Rng) -> np.ndarray:
    """Draw a unit vector with s entries of equal size and random signs.

    Args:
        d: length
        s: non-zeros
        rng: draws

    Returns:
        (d,) float64.
    """
    theta = np.zeros(d)
    theta[rng.choice(d, s, replace=False)] = rng.choice([-1.0, 1.0], s) / np.sqrt(s)
    return theta


def spread(d: int, s: int, actions: int, eps: float, rng: Rng, positive: bool = False) -> Instance:
    """The d basis vectors and ``actions`` sign vectors / sqrt(d).

    The basis lies by eps: off the support of theta towards the first sign vector, on it towards zero. Least squares on
    the basis then believes that the first sign vector is worth eps * sqrt(d). The sign vectors are exact.

    positive: theta has no negative entry, so that the best basis vector is worth 1/sqrt(s) - eps, in the same draws
    otherwise. Where all signs are negative, the best action is worth about eps, and no answer can be far from it.
    """
    theta = sparse_theta(d, s, rng)
    if positive:
        theta = np.abs(theta)
    signs = rng.choice([-1.0, 1.0], (actions, d))
    basis = np.where(theta == 0, eps * signs[0], theta - eps * np.sign(theta))
    features = np.vstack([np.eye(d), signs / np.sqrt(d)])
    return features, np.concatenate([basis, features[d:] @ theta]), theta


def packing_size(s: int, coherence: float) -> int:
    """Sign vectors in s dimensions that random choice can hold below ``coherence``: exp(g^2 s / 4), at least 2."""
    return max(2, int(np.exp(coherence**2 * s / 4)))


ATTEMPTS = 2000  # sign vectors proposed for each one that is wanted


def needle(d: int, s: int, actions: int, coherence: float, eps: float, rng: Rng) -> Instance:
    """One action is worth eps / coherence, the others nothing, and all features are nearly orthogonal.

    K sign vectors / sqrt(s) with |<a, b>| <= coherence, padded with zeros to d; theta = (eps / coherence) times the
    needle's. Before the needle is queried every reward is 0. Raises ValueError where the vectors are not found.
    """
    found: list[np.ndarray] = []
    for _ in range(ATTEMPTS * actions):
        candidate = rng.choice([-1.0, 1.0], s) / np.sqrt(s)
        if not found or np.abs(np.array(found) @ candidate).max() <= coherence:
            found.append(candidate)
            if len(found) == actions:
                break
    else:
        raise ValueError(
            f"{len(found)} of {actions} sign vectors of coherence {coherence:g} were found in {s} dimensions"
        )
    features = np.zeros((actions, d))
    features[:, :s] = found
    at = int(rng.integers(actions))
    rewards = np.zeros(actions)
    rewards[at] = eps / coherence
    return features, rewards, eps / coherence * features[at]


def random(d: int, s: int, actions: int, eps: float, rng: Rng) -> Instance:
    """Unit vectors in random directions; each reward is eps off, up or down at random."""
    features = rng.normal(size=(actions, d))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    theta = sparse_theta(d, s, rng)
    return features, features @ theta + eps * rng.choice([-1.0, 1.0], actions), theta


def rows(data: np.ndarray, target: np.ndarray, s: int, actions: int, eps: float, rng: Rng) -> Instance:
    """Take some rows of a real table as actions; a reward is an s-sparse linear fit plus its residual.

    The residual is clipped at eps. Rows are scaled to the unit ball and the target to |theta| <= 1, over the whole table.

    Args:
        data: (rows, d)
        target: (rows,)
        s: non-zeros of the fit
        actions: rows that become actions
        eps: largest residual
        rng: draws
    """
    from sklearn.linear_model import OrthogonalMatchingPursuit

    features = data / np.linalg.norm(data, axis=1).max()
    fit = OrthogonalMatchingPursuit(n_nonzero_coefs=s, fit_intercept=False).fit(features, target)
    theta = np.asarray(fit.coef_, dtype=np.float64)
    scale = max(float(np.linalg.norm(theta)), float(np.abs(target).max()))
    theta, target = theta / scale, target / scale
    rewards = features @ theta + np.clip(target - features @ theta, -eps, eps)
    chosen = rng.permutation(len(features))[:actions]
    return features[chosen], rewards[chosen], theta
