"""Iterative hard thresholding: in rounds with fresh users who send private gradients, and without privacy.

Zhu, Ding, Aggarwal, Xu & Wang (ICLR 2024, arXiv 2310.07367), the sequentially interactive algorithm, which corrects Wang &
Xu (2021). Constants are a reconstruction: see the card.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from sparselab.estimation.estimators.checks import is_number, is_whole, number, one_of, whole
from sparselab.estimation.estimators.privacy.base import Clipped, Linear, Private, generator
from sparselab.estimation.estimators.privacy.closed import MECHANISMS, PIECE
from sparselab.estimation.estimators.privacy.gaussian import bearable, calibrate
from sparselab.estimation.estimators.privacy.ledger import Release, total
from sparselab.estimation.estimators.privacy.shrinkage import into_ball, keep_largest
from sparselab.estimation.estimators.privacy.sphere import Sphere
from sparselab.estimation.problems.linear.clip import limit
from sparselab.estimation.problems.linear.users import Moments, Rows, Users


def groups(n: int, rounds: int) -> list[tuple[int, int]]:
    """The users of each round, as (start, end): every user in exactly one, sizes equal up to one."""
    ends = [n * t // rounds for t in range(rounds + 1)]
    return list(pairwise(ends))


class _Thresholding(Clipped):
    """Base of both: k the assumed number of non-zeros, k_prime those kept (None: 2 k), rounds, step, ball."""

    k: int
    k_prime: int | None
    rounds: int
    step: float
    ball: float

    def _sizes(self, n: int, d: int) -> None:
        for name in ("k", "rounds"):
            whole(self, name)
        self._above_zero("step", "ball")
        kept = 2 * self.k if self.k_prime is None else self.k_prime
        if not is_whole(kept) or kept < 1:
            raise ValueError(f"k_prime={kept!r}: has to be a whole number, at least 1, or None for 2 k")
        for name in ("k", "k_prime"):
            if (getattr(self, name) or 0) > d:
                raise ValueError(f"{name}={getattr(self, name)}: more non-zeros than n_features={d}")
        self.k_prime_ = min(int(kept), d)  # 2 k may be more than there are

    def _moved(self, theta: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return into_ball(keep_largest(theta - self.step * gradient, self.k_prime_), self.ball)


class LDPIHTRegressor(Private, _Thresholding):
    """Sequentially interactive, locally private: each round asks fresh users for their gradient at the current estimate.

    A user of round t sends x (<x, theta> - y), with x shrunk to norm r, y and then the residual cut, so that its norm is at
    most G = r * clip_residual; the server takes a step against the average, keeps the k_prime largest entries and projects
    into a ball. mechanism: ``duchi`` (pure epsilon, :mod:`~sparselab.estimation.estimators.privacy.sphere`), or ``gaussian`` or
    ``analytic``, which spend delta, too. clip_residual: None is clip_y's. simulate: ``per_user``, or ``aggregate`` (Gaussian
    noise only).
    The other parameters are those of :class:`~sparselab.estimation.estimators.privacy.closed.LDPSparseRegressor`.

    After ``fit``: ``coef_``, ``privacy_spent_``, ``clip_x_``, ``clip_y_``, ``clip_residual_``, ``groups_``, ``n_iter_``,
    ``flags_``.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        delta: float | None = None,
        k: int = 2,
        k_prime: int | None = None,
        rounds: int = 10,
        step: float = 0.5,
        ball: float = 1.0,
        clip_x: float | str = "typical",
        clip_y: float | str = "typical",
        clip_residual: float | None = None,
        x_scale: float = 1.0,
        y_scale: float = 1.0,
        mechanism: str = "duchi",
        simulate: str = "per_user",
        random_state: Any = None,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.k = k
        self.k_prime = k_prime
        self.rounds = rounds
        self.step = step
        self.ball = ball
        self.clip_x = clip_x
        self.clip_y = clip_y
        self.clip_residual = clip_residual
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.mechanism = mechanism
        self.simulate = simulate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Any:
        """As in the base; who answers in which round is drawn, so that sorted rows do no harm."""
        X, y = self._checked(X, y)
        self.intercept_ = 0.0
        rng = generator(self.random_state)
        order = rng.permutation(len(X))
        self._ask(Rows(X[order], y[order]), rng)
        return self

    def _estimate(self, users: Users | Moments) -> None:
        self._ask(users, generator(self.random_state))

    def _ask(self, users: Users | Moments, rng: np.random.Generator) -> None:
        self._above_zero("epsilon")
        one_of(self, "mechanism", ("duchi", *MECHANISMS[:2]))
        one_of(self, "simulate", ("per_user", "aggregate"))
        if self.mechanism == "duchi" and self.simulate == "aggregate":
            raise ValueError("simulate='aggregate': the sum of messages on a sphere has no simple law; use 'per_user'")
        self._sizes(users.n, users.d)
        if users.n < self.rounds:
            raise ValueError(
                f"rounds={self.rounds}: n_samples={users.n} are too few, every round needs a user of its own"
            )
        delta = 0.0 if self.mechanism == "duchi" else self._delta(users.n)
        voided = self._limits(users)
        if self.clip_residual is not None:
            self._above_zero("clip_residual")
        self.clip_residual_ = self.clip_y_ if self.clip_residual is None else float(self.clip_residual)
        bound = self.clip_x_ * self.clip_residual_
        if self.mechanism == "duchi":
            self._sphere = Sphere(users.d, bound, float(self.epsilon))
            (self.noise_,) = bearable([self._sphere.radius], self.epsilon, delta)
        else:
            (self.noise_,) = calibrate([2 * bound], [1.0], self.epsilon, delta, self.mechanism)
        self.groups_ = groups(users.n, self.rounds)
        theta, releases = np.zeros(users.d), []
        for round_, (start, stop) in enumerate(self.groups_):
            theta = self._moved(theta, self._answers(users, start, stop, theta, rng))
            epsilon = float(self.epsilon)
            releases.append(Release(round_, "gradient", self.mechanism, epsilon, delta, 2 * bound, self.noise_))
        self.coef_ = theta
        self.n_iter_ = self.rounds
        self.privacy_spent_ = total(releases, voided)
        self.flags_ = {"private": self.privacy_spent_.private}

    def gradients(self, X: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Compute the messages of the users before noise: x (<x, theta> - y) of clipped x, y and residual.

        Args:
            X: (n, d), a row for each user
            y: (n,)
            theta: (d,)

        Returns:
            (n, d).
        """
        X, y = limit(X, y, self.clip_x_, self.clip_y_)
        return X * np.clip(X @ theta - y, -self.clip_residual_, self.clip_residual_)[:, None]

    def _answers(self, users: Users | Moments, start: int, stop: int, theta: np.ndarray, rng: Any) -> np.ndarray:
        """The average of the messages of users ``start`` to ``stop``, (d,)."""
        if isinstance(users, Moments):
            raise ValueError("moments have no single users, and every one is asked")
        so_far = np.zeros(users.d)
        for X, y in users.blocks(start, stop):
            for at in range(0, len(X), PIECE):
                so_far += self._sent(self.gradients(X[at : at + PIECE], y[at : at + PIECE], theta), rng).sum(axis=0)
        if self.simulate == "aggregate":
            so_far += self.noise_ * math.sqrt(stop - start) * rng.standard_normal(users.d)
        return so_far / (stop - start)

    def _sent(self, gradients: np.ndarray, rng: Any) -> np.ndarray:
        if self.mechanism == "duchi":
            return self._sphere.privatise(gradients, rng)
        if self.simulate == "aggregate":
            return gradients
        return gradients + self.noise_ * rng.standard_normal(gradients.shape)


class IHTRegressor(_Thresholding):
    """Not private: iterative hard thresholding with the gradient of all users in each round.

    Parameters as in :class:`LDPIHTRegressor`; clip_x and clip_y may be None for no limit.
    """

    unlimited = True

    def __init__(
        self,
        k: int = 2,
        k_prime: int | None = None,
        rounds: int = 50,
        step: float = 0.5,
        ball: float = 1.0,
        clip_x: float | str | None = None,
        clip_y: float | str | None = None,
        x_scale: float = 1.0,
        y_scale: float = 1.0,
    ):
        self.k = k
        self.k_prime = k_prime
        self.rounds = rounds
        self.step = step
        self.ball = ball
        self.clip_x = clip_x
        self.clip_y = clip_y
        self.x_scale = x_scale
        self.y_scale = y_scale

    def _estimate(self, users: Users | Moments) -> None:
        self._sizes(users.n, users.d)
        self._limits(users)
        xx, xy = users.averages(self.clip_x_, self.clip_y_)
        theta = np.zeros(users.d)
        for _ in range(self.rounds):
            theta = self._moved(theta, xx @ theta - xy)
        self.coef_ = theta
        self.n_iter_ = self.rounds

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # it looks inside a ball for a parameter of k entries
        return tags


class MomentsLasso(Linear):
    """Not private: the Lasso from second moments alone (LARS), 1/2 theta^T Sxx theta - Sxy^T theta + alpha |theta|_1.

    alpha: the penalty, or ``auto``: y_scale sqrt(2 log d / n), as is usual for noise of standard deviation y_scale.
    """

    def __init__(self, alpha: float | str = "auto", y_scale: float = 1.0):
        self.alpha = alpha
        self.y_scale = y_scale

    def _estimate(self, users: Users | Moments) -> None:
        from sklearn.linear_model import lars_path_gram

        if isinstance(self.alpha, str):
            one_of(self, "alpha", ("auto",))
            alpha = number(self, "y_scale", 0.0) * math.sqrt(2 * math.log(max(users.d, 2)) / users.n)
        elif not is_number(self.alpha) or self.alpha < 0:
            raise ValueError(f"alpha={self.alpha!r}: has to be 'auto' or a number, at least 0")
        else:
            alpha = float(self.alpha)
        xx, xy = users.averages(None, None)
        _, _, path = lars_path_gram(xy, xx, n_samples=1, alpha_min=alpha, method="lasso")
        self.alpha_ = alpha
        self.coef_ = path[:, -1]
