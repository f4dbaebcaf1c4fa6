"""Closed-form sparse regression: soft(Sxx^-1 Sxy, lambda), from noisy, noisy once, or exact second moments.

Zhu, Ding, Aggarwal, Xu & Wang (ICLR 2024, arXiv 2310.07367), algorithm 1 and its two by-products. Constants are a
reconstruction: see the card.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparselab.estimation.estimators.checks import is_number, number, one_of
from sparselab.estimation.estimators.privacy.base import Clipped, Private, generator
from sparselab.estimation.estimators.privacy.gaussian import calibrate
from sparselab.estimation.estimators.privacy.ledger import Release, total
from sparselab.estimation.estimators.privacy.shrinkage import lifted, mirrored, soft
from sparselab.estimation.problems.linear.clip import limit
from sparselab.estimation.problems.linear.users import Moments, Rows, Users

MECHANISMS = ("gaussian", "analytic", "joint")
PIECE = 1 << 13  # users whose messages are held at a time


def messages(
    X: np.ndarray, y: np.ndarray, sigmas: tuple[float, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Messages of the users: the upper triangles of x x^T (n, d (d + 1) / 2) and x y (n, d), each entry with its own noise.

    X, y: already clipped. sigmas: standard deviations of the two noises.
    """
    rows, columns = np.triu_indices(X.shape[1])
    squares = X[:, rows] * X[:, columns] + sigmas[0] * rng.standard_normal((len(X), len(rows)))
    return squares, X * y[:, None] + sigmas[1] * rng.standard_normal(X.shape)


class _Closed(Clipped):
    """soft(Sxx^-1 Sxy, lambda) with a guard for moments that are not well above 0.

    lam: the level, or ``auto``: ``lam_scale`` (None: sqrt(2 log d)) times the standard deviation of an entry's noise.
    kappa: the assumed smallest eigenvalue of the covariance. psd_guard: raise eigenvalues below kappa / 2 to it.
    """

    lam: float | str
    lam_scale: float | None
    kappa: float
    psd_guard: bool

    def _finish(self, xx: np.ndarray, xy: np.ndarray, deviation: float) -> None:
        self.guarded_ = False
        if self.psd_guard:
            xx, self.guarded_ = lifted(xx, self.kappa / 2)
        self.lam_ = self._level(len(xy), deviation)
        try:
            self.coef_ = soft(np.linalg.solve(xx, xy), self.lam_)
        except np.linalg.LinAlgError:
            self.coef_ = soft(np.linalg.lstsq(xx, xy)[0], self.lam_)

    def _level(self, d: int, deviation: float) -> float:
        if isinstance(self.lam, str):
            one_of(self, "lam", ("auto",))
            scale = math.sqrt(2 * math.log(max(d, 2))) if self.lam_scale is None else self.lam_scale
            if not is_number(scale) or scale < 0:
                raise ValueError(f"lam_scale={scale!r}: has to be a number, at least 0, or None for sqrt(2 log d)")
            return float(scale) * deviation / self.kappa
        if not is_number(self.lam) or self.lam < 0:
            raise ValueError(f"lam={self.lam!r}: has to be 'auto' or a number, at least 0")
        return float(self.lam)


class LDPSparseRegressor(Private, _Closed):
    """Non-interactive, locally private: each user sends one noisy x x^T and one noisy x y, once.

    epsilon, delta: of each user; delta=None is 1 / n. clip_x: norm that rows are shrunk to; clip_y: the largest |y|: a
    number, or from what is assumed (x_scale, y_scale) ``typical``, ``signs`` or ``all``; ``data`` takes the largest of
    the data, and then nothing is private. split: share of the budget for x x^T. sensitivity: of x x^T, ``bound`` (2 r^2,
    triangle inequality) or ``exact`` (sqrt(2) r^2). mechanism: ``gaussian`` (classical), ``analytic`` or ``joint``. simulate:
    ``per_user`` draws every message, ``aggregate`` the sum of their noise, which has the same law. theta_norm: assumed
    length of the parameter.

    After ``fit``: ``coef_``, ``privacy_spent_`` (:class:`~.ledger.Spent`), ``lam_``, ``noise_``
    (the two standard deviations of one message), ``clip_x_``, ``clip_y_``, ``guarded_``, ``flags_``.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        delta: float | None = None,
        clip_x: float | str = "typical",
        clip_y: float | str = "typical",
        x_scale: float = 1.0,
        y_scale: float = 1.0,
        lam: float | str = "auto",
        lam_scale: float | None = 2.0,
        split: float = 0.5,
        sensitivity: str = "bound",
        mechanism: str = "gaussian",
        kappa: float = 1.0,
        psd_guard: bool = True,
        simulate: str = "per_user",
        theta_norm: float = 1.0,
        random_state: Any = None,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.clip_x = clip_x
        self.clip_y = clip_y
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.lam = lam
        self.lam_scale = lam_scale
        self.split = split
        self.sensitivity = sensitivity
        self.mechanism = mechanism
        self.kappa = kappa
        self.psd_guard = psd_guard
        self.simulate = simulate
        self.theta_norm = theta_norm
        self.random_state = random_state

    def fit(self, X: Any, y: Any, public: Any = None) -> Any:
        """Fit to ``X`` (n, d) and ``y`` (n,), a row per user. public: (m, d) rows without responses that everybody knows.

        With them x x^T is not sent, and the whole budget is spent on x y.
        """
        rows = self._checked(X, y)
        if public is None:
            return self.fit_users(Rows(*rows))
        public = np.asarray(public, dtype=np.float64)
        if public.ndim != 2 or public.shape[1] != rows[0].shape[1] or len(public) < 1 or not np.isfinite(public).all():
            raise ValueError(f"public of shape {public.shape}: has to be finite rows of {rows[0].shape[1]} features")
        return self.fit_users(Rows(*rows, public), public=True)

    def fit_users(self, users: Users | Moments, public: bool = False) -> Any:
        """As in the base. public: take x x^T from the public rows that came with the users."""
        self._public = public
        return super().fit_users(users)

    def _estimate(self, users: Users | Moments) -> None:
        self._above_zero("epsilon", "kappa", "theta_norm")
        one_of(self, "mechanism", MECHANISMS)
        one_of(self, "sensitivity", ("bound", "exact"))
        one_of(self, "simulate", ("per_user", "aggregate"))
        number(self, "split", 0.0, 1.0)
        delta = self._delta(users.n)
        voided = self._limits(users)
        known = users.public_average(self.clip_x_) if self._public else None
        if self._public and known is None:
            raise ValueError("no public rows came with these users")
        sizes = self._sizes()[known is not None :]
        shares = [1.0] if known else [self.split, 1 - self.split]
        sigmas = calibrate(sizes, shares, self.epsilon, delta, self.mechanism)
        self.privacy_spent_ = self._spend(sizes, shares, sigmas, delta, voided)
        rng = generator(self.random_state)
        self.noise_: tuple[float, ...] = (0.0, *sigmas) if known else tuple(sigmas)
        xx, xy = self._received(users, rng)
        variance = (self.noise_[0] * self.theta_norm) ** 2 + self.noise_[1] ** 2
        deviation = math.sqrt(variance) * self._per(users.n)
        if known is not None:
            m, xx = known
            deviation = math.hypot(deviation, self.x_scale**2 * self.theta_norm / math.sqrt(m))
        self._finish(xx, xy, deviation)
        self.flags_ = {"guarded": self.guarded_, "private": self.privacy_spent_.private, "public": known is not None}

    def _sizes(self) -> list[float]:
        """The sensitivities of x x^T (Frobenius norm, so that any order of its entries is covered) and of x y."""
        factor = 2.0 if self.sensitivity == "bound" else math.sqrt(2)
        try:
            return [factor * self.clip_x_**2, 2 * self.clip_x_ * self.clip_y_]
        except OverflowError:
            raise ValueError(
                f"clip_x={self.clip_x_:g}: its square is beyond floating point; give a smaller one"
            ) from None

    def _spend(
        self, sizes: list[float], shares: list[float], sigmas: list[float], delta: float, voided: list[str]
    ) -> Any:
        names = ("x x^T", "x y")[-len(sizes) :]
        if self.mechanism == "joint" and len(sizes) > 1:  # one release of both: its parts have no epsilon of their own
            length = math.hypot(*(size / sigma for size, sigma in zip(sizes, sigmas, strict=True)))
            one = Release("all", "x x^T and x y", "joint", float(self.epsilon), delta, length, 1.0)
            return total([one], voided)
        releases = [
            Release("all", name, self.mechanism, share * self.epsilon, share * delta, size, sigma)
            for name, share, size, sigma in zip(names, shares, sizes, sigmas, strict=True)
        ]
        return total(releases, voided)

    def _per(self, n: int) -> float:
        """A noise's standard deviation in the average of ``n`` users, over that in one message."""
        return 1 / math.sqrt(n)

    def _received(self, users: Users | Moments, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The averages of what the users send: (d, d), symmetric, and (d,)."""
        if self.simulate == "aggregate":
            return self._noised(users, rng)
        if isinstance(users, Moments):
            raise ValueError("moments have no single users: use simulate='aggregate'")
        d, sums = users.d, [np.zeros(users.d * (users.d + 1) // 2), np.zeros(users.d)]
        for block in users.blocks(0, users.n):
            X, y = limit(*block, self.clip_x_, self.clip_y_)
            for at in range(0, len(X), PIECE):
                for so_far, sent in zip(
                    sums, messages(X[at : at + PIECE], y[at : at + PIECE], self.noise_, rng), strict=True
                ):
                    so_far += sent.sum(axis=0)
        return mirrored(sums[0] / users.n, d), sums[1] / users.n

    def _noised(self, users: Users | Moments, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The exact averages with the average of all noises drawn at once: normal, too, and as much smaller."""
        xx, xy = users.averages(self.clip_x_, self.clip_y_)
        per, d = self._per(users.n), users.d
        noise = mirrored(per * self.noise_[0] * rng.standard_normal(d * (d + 1) // 2), d)
        return xx + noise, xy + per * self.noise_[1] * rng.standard_normal(d)


class CentralDPRegressor(LDPSparseRegressor):
    """The same with a trusted server: it averages the clipped moments and adds the noise once (central model).

    The sensitivity of an average is a user's over n, so an entry's noise is smaller than in the local model by sqrt(n).
    Parameters are those of :class:`LDPSparseRegressor`; ``simulate`` has no effect.
    """

    def _per(self, n: int) -> float:
        return 1 / n

    def _received(self, users: Users | Moments, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._noised(users, rng)


class SoftThresholdRegressor(_Closed):
    """Not private: soft(Sxx^-1 Sxy, lambda) of the data themselves, the estimator that the paper gets as a by-product.

    lam: the level, or ``auto``: lam_scale (None: sqrt(2 log d)) times y_scale / sqrt(n). With lam=0 it is least squares.
    clip_x, clip_y: as in :class:`LDPSparseRegressor`, or None for no limit.
    """

    unlimited = True

    def __init__(
        self,
        lam: float | str = "auto",
        lam_scale: float | None = None,
        clip_x: float | str | None = None,
        clip_y: float | str | None = None,
        x_scale: float = 1.0,
        y_scale: float = 1.0,
        kappa: float = 1.0,
        psd_guard: bool = False,
    ):
        self.lam = lam
        self.lam_scale = lam_scale
        self.clip_x = clip_x
        self.clip_y = clip_y
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.kappa = kappa
        self.psd_guard = psd_guard

    def _estimate(self, users: Users | Moments) -> None:
        self._above_zero("kappa")
        self._limits(users)
        self._finish(*users.averages(self.clip_x_, self.clip_y_), self.y_scale / math.sqrt(users.n))
