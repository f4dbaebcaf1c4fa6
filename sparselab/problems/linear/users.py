"""Users of a linear model, a row and a response each: rows in blocks, or only their exact second moments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sparselab.problems.linear.clip import limit
from sparselab.problems.linear.law import Law

BLOCK = 1 << 15  # rows that are drawn or noised at a time
NEGLIGIBLE = 1e-3  # probability below which clipping may be left out of moments that were drawn as such

Block = tuple[np.ndarray, np.ndarray]


class Users(ABC):
    """n users with d features each. ``public`` is what the server knows besides: rows without responses, (m, d), or None."""

    n: int
    d: int
    public: np.ndarray | None

    @abstractmethod
    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """(X, y) of the users from ``start`` to before ``stop``, in order, at most BLOCK at a time."""

    def averages(self, radius: float | None, tau: float | None) -> Block:
        """(X^T X / n, X^T y / n) of rows shrunk to ``radius`` and responses cut at ``tau``; None: as they are."""
        xx, xy = np.zeros((self.d, self.d)), np.zeros(self.d)
        for block in self.blocks(0, self.n):
            X, y = limit(*block, radius, tau)
            xx += X.T @ X
            xy += X.T @ y
        return xx / self.n, xy / self.n

    def public_average(self, radius: float | None) -> tuple[int, np.ndarray] | None:
        """(m, X^T X / m) of the public rows, shrunk like the users'; None where there are none."""
        if self.public is None:
            return None
        X, _ = limit(self.public, self.public[:, 0], radius, None)
        return len(X), X.T @ X / len(X)


class Rows(Users):
    """Users whose rows are at hand: ``X`` (n, d) and ``y`` (n,)."""

    def __init__(self, X: np.ndarray, y: np.ndarray, public: np.ndarray | None = None):
        self.X, self.y, self.public = X, y, public
        self.n, self.d = X.shape

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        for at in range(start, stop, BLOCK):
            end = min(at + BLOCK, stop)
            yield self.X[at:end], self.y[at:end]


class Drawn(Users):
    """Users who are drawn when they are asked: ``draw(number)`` gives the block of that number, always the same.

    The first n of more users are the n users of fewer.
    """

    def __init__(self, n: int, d: int, draw: Callable[[int], Block], public: np.ndarray | None = None):
        self.n, self.d, self.draw, self.public = n, d, draw, public

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            first = number * BLOCK
            part = slice(max(start - first, 0), min(stop - first, BLOCK))
            X, y = self.draw(number)
            yield X[part], y[part]


@dataclass(frozen=True)
class Moments:
    """Exact second moments of n users of a known law, drawn without drawing the users.

    xx: (d, d) X^T X / n. xy: (d,) X^T y / n. public: (m, X^T X / m) of m public rows, or None.
    """

    n: int
    law: Law
    xx: np.ndarray
    xy: np.ndarray
    public: tuple[int, np.ndarray] | None = None

    @property
    def d(self) -> int:
        return self.law.d

    def averages(self, radius: float | None, tau: float | None) -> Block:
        """The moments. ValueError where clipping at ``radius`` and ``tau`` would have changed them, which nobody can know."""
        chance = self.law.escape(self.n, radius, tau)
        if chance > NEGLIGIBLE:
            raise ValueError(
                f"these moments are of users that are not clipped; at these limits one would be ({chance:.1g})"
            )
        return self.xx, self.xy

    def public_average(self, radius: float | None) -> tuple[int, np.ndarray] | None:
        return self.public
