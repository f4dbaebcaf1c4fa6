"""A misspecified linear bandit: actions with features, rewards that are linear up to eps, and a count of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SLACK = 1e-12  # rounding that the check of the misspecification allows


@dataclass(frozen=True)
class Answer:
    """A solver's answer: the action, and the bound of its theory, if it has one.

    gap:     the largest gap that it allows. queries: the most queries that it takes.
    """

    action: int
    gap: float | None = None
    queries: float | None = None


class Bandit:
    """Actions 0 .. K-1 with features (K, d) in the unit ball and expected rewards within eps of <features, theta>.

    Without noise a repeated query gives the same number and costs nothing; with it, every query costs one. A solver may
    read ``features``, ``eps``, ``s`` and ``noise``. Raises ValueError where the rewards are not within eps.
    """

    def __init__(
        self,
        features: np.ndarray,
        rewards: np.ndarray,
        theta: np.ndarray,
        eps: float,
        s: int,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
    ):
        off = np.abs(rewards - features @ theta).max()
        if off > eps + SLACK:
            raise ValueError(f"rewards are {off:.3g} from linear, which is above eps = {eps:g}")
        if np.linalg.norm(features, axis=1).max() > 1 + 1e-9:
            raise ValueError("a feature lies outside the unit ball")
        self.features = features
        self.eps = eps
        self.s = s
        self.noise = noise
        self._rewards = rewards
        self._theta = theta
        self._rng = rng
        self._asked: dict[int, int] = {}  # action to the number of the query that asked for it first
        self._count = 0

    @property
    def queries(self) -> int:
        """Queries so far: distinct actions without noise, all of them with it."""
        return self._count if self.noise else len(self._asked)

    def query(self, action: int, times: int = 1) -> float:
        """The mean of ``times`` rewards of an action."""
        self._asked.setdefault(int(action), self.queries + 1)
        self._count += times
        reward = float(self._rewards[action])
        if self.noise:
            assert self._rng is not None
            reward += self.noise * float(self._rng.standard_normal(times).mean())
        return reward

    def measure(self, answer: Answer) -> dict[str, float]:
        """``gap`` to the best expected reward, ``gap_eps`` = gap / eps, ``queries``, and what theory says of both.

        ``found``: whether the best action was queried; ``position``: the number of the query that did (left out
        otherwise). ``sparsity``: 1 - s/d of theta. ``gap_of_bound``, ``queries_of_bound``: shares of the promised most.
        """
        best = float(self._rewards.max())
        gap = best - float(self._rewards[answer.action])
        scores = {
            "gap": gap,
            "gap_eps": gap / self.eps,
            "queries": float(self.queries),
            "actions": float(len(self._rewards)),
            "dimensions": float(self.features.shape[1]),
            "sparsity": 1 - self.s / self.features.shape[1],
        }
        positions = [self._asked[int(a)] for a in np.flatnonzero(self._rewards == best) if int(a) in self._asked]
        scores["found"] = float(bool(positions))
        if positions:
            scores["position"] = float(min(positions))
            # All positions are equally likely where nothing is learnt before: then the mean is (K + 1) / 2.
            scores["position_of_chance"] = min(positions) / ((len(self._rewards) + 1) / 2)
        if answer.gap is not None:
            scores["gap_bound_eps"] = answer.gap / self.eps
            scores["gap_of_bound"] = gap / answer.gap
        if answer.queries is not None:
            scores["queries_bound"] = float(answer.queries)
            scores["queries_of_bound"] = self.queries / answer.queries
        return scores
