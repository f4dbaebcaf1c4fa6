"""Elimination over a net of sparse parameters: optimistic queries until one is right."""

from __future__ import annotations

import numpy as np

from sparselab.estimation.problems.bandits.bandit import Answer, Bandit
from sparselab.estimation.solvers.linear import net


class Net:
    """All candidates, each as ``support`` (n, s) and ``value`` (n, s); unused places have value 0."""

    def __init__(self, features: np.ndarray, s: int, eps: float, eta: float):
        d = features.shape[1]
        supports, values, best = [np.zeros((1, s), int)], [np.zeros((1, s))], [np.zeros(1)]
        for j in range(1, s + 1):
            points = np.array(net.grid(j, eps, eta))
            if not len(points):
                break
            places = np.array(net.supports(d, j))
            for start in range(0, len(places), net.SUPPORTS):
                some = places[start : start + net.SUPPORTS]
                top = np.array([(points @ features[:, place].T).max(axis=1) for place in some])
                best.append(top.ravel())
                supports.append(np.pad(np.repeat(some, len(points), axis=0), ((0, 0), (0, s - j))))
                values.append(np.pad(np.tile(points, (len(some), 1)), ((0, 0), (0, s - j))))
        self.support = np.concatenate(supports)
        self.value = np.concatenate(values)
        self.best = np.concatenate(best)  # max over actions of what the candidate predicts

    def __len__(self) -> int:
        return len(self.best)

    def predict(self, feature: np.ndarray) -> np.ndarray:
        """Return what each candidate predicts for one action.

        Args:
            feature: (d,) of the action

        Returns:
            (candidates,).
        """
        return np.einsum("ij,ij->i", feature[self.support], self.value)

    def theta(self, candidate: int, d: int) -> np.ndarray:
        """(d,) a candidate as a vector."""
        vector = np.zeros(d)
        np.add.at(vector, self.support[candidate], self.value[candidate])
        return vector


def eliminate(bandit: Bandit, candidates: Net, tol: float, times: int) -> tuple[Answer, np.ndarray]:
    """Query the best action of the most optimistic candidate until a candidate survives its own query.

    A query removes every candidate that is off by more than ``tol``; ``times`` rewards are averaged. Returns the answer,
    and (n,) bool, which candidates are left. Of equal candidates or actions the first goes first.
    """
    alive = np.ones(len(candidates), bool)
    order = np.argsort(-np.round(candidates.best, 12), kind="stable")
    for candidate in order:
        if not alive[candidate]:
            continue
        action = int(np.argmax(np.round(bandit.features @ candidates.theta(candidate, bandit.features.shape[1]), 12)))
        reward = bandit.query(action, times)
        alive &= np.abs(candidates.predict(bandit.features[action]) - reward) <= tol * (1 + 1e-9)
        if alive[candidate]:
            return Answer(action, 2 * bandit.eps + tol, float(len(candidates) * times)), alive
    raise ValueError("every candidate was removed: the rewards are not what the bandit says they are")
