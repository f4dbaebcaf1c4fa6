"""A surrogate as a scikit-learn regressor: an ensemble of perceptrons whose sharpness may be held down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sparselab.estimation.estimators.checks import checked, number, one_of, whole
from sparselab.estimation.estimators.surrogates.losses import Gaussian, Squared
from sparselab.estimation.estimators.surrogates.network import Adam, Network
from sparselab.estimation.estimators.surrogates.sharpness import Sharpness
from sparselab.estimation.estimators.surrogates.surface import Surface, mean_gradient

LOSSES: dict[str, type[Gaussian] | type[Squared]] = {"gaussian": Gaussian, "squared": Squared}
SHARPNESS = ("none", "dual", "fixed")

Array = np.ndarray


class SurrogateRegressor(RegressorMixin, BaseEstimator):
    """Perceptrons that predict a score, with the sharpness penalty of Dao et al. (2025, arXiv 2503.04242) or without.

    Columns and target are standardised inside. members: perceptrons, each from its own start and, with ``bootstrap``, its
    own resample of the rows. width, depth, slope: of the hidden layers and their rectifiers. loss: ``gaussian`` (mean and
    spread) or ``squared``. epochs, batch, rate: of Adam. validation: rows held out of the fit, scored afterwards.
    sharpness: ``none``, ``dual`` (lam rises while rho |grad G| is above eps: IGNITE) or ``fixed`` (IGNITE-2), with lam, eta,
    eps, rho, r and clip as in :class:`~sparselab.estimation.estimators.surrogates.sharpness.Sharpness`; each member has its
    own lam. random_state: starts, resamples, held-out rows and the order of the rows.

    After ``fit``: ``surface_`` (in standardised coordinates), ``lam_`` (the mean over members, 0 without a penalty),
    ``n_iter_`` (steps of a member), ``validation_error_`` (mean square over the variance of y, nan without held-out rows).
    """

    def __init__(
        self,
        members: int = 1,
        width: int = 2048,
        depth: int = 2,
        slope: float = 0.3,
        loss: str = "gaussian",
        epochs: int = 100,
        batch: int = 128,
        rate: float = 3e-4,
        validation: int = 0,
        bootstrap: bool = True,
        sharpness: str = "dual",
        lam: float = 1e-3,
        eta: float = 1e-3,
        eps: float = 0.1,
        rho: float = 0.05,
        r: float = 0.05,
        clip: bool = False,
        random_state: Any = None,
    ):
        self.members = members
        self.width = width
        self.depth = depth
        self.slope = slope
        self.loss = loss
        self.epochs = epochs
        self.batch = batch
        self.rate = rate
        self.validation = validation
        self.bootstrap = bootstrap
        self.sharpness = sharpness
        self.lam = lam
        self.eta = eta
        self.eps = eps
        self.rho = rho
        self.r = r
        self.clip = clip
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SurrogateRegressor:
        """Fit every member to ``X`` (n, features) and ``y`` (n,)."""
        X, y = checked(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self._check(len(X))
        seeds = check_random_state(self.random_state).randint(2**31, size=self.members + 1)
        self._scale(X, y)
        order = np.random.default_rng(seeds[-1]).permutation(len(X))
        held, kept = order[: self.validation], order[self.validation :]
        Z, t = self.standardised(X).astype(np.float32), ((y - self.y_mean_) / self.y_scale_).astype(np.float32)
        network = Network([X.shape[1], *[self.width] * self.depth, LOSSES[self.loss].outputs], self.slope)
        fits = [self._member(network, Z[kept], t[kept], np.random.default_rng(seed)) for seed in seeds[:-1]]
        self.surface_ = Surface(network, np.stack([vector for vector, _ in fits]).astype(np.float64))
        if not np.isfinite(self.surface_.members).all():
            raise ValueError(f"the fit grew without end: write a rate below {self.rate:g}{self._or_smaller()}")
        self.lam_ = float(np.mean([lam for _, lam in fits]))
        self.n_iter_ = self.epochs * -(-len(kept) // self.batch)
        off = self.surface_.mean(Z[held].astype(np.float64)) - t[held]
        self.validation_error_ = float((off**2).mean()) if len(held) else float("nan")
        return self

    def predict(self, X: Any) -> Array:
        """(n,) the members' mean prediction."""
        check_is_fitted(self)
        X = checked(self, X, dtype=np.float64, reset=False)
        return self.surface_.mean(self.standardised(X)) * self.y_scale_ + self.y_mean_

    def sharpness_on(self, X: Any) -> float:
        """|grad G|, of the mean (standardised) prediction over the rows of ``X``, in a member's parameters."""
        check_is_fitted(self)
        return self.surface_.sharpness(self.standardised(checked(self, X, dtype=np.float64, reset=False)))

    def standardised(self, X: Array) -> Array:
        """``X`` as the members read it."""
        return (X - self.x_mean_) / self.x_scale_

    def restored(self, Z: Array) -> Array:
        """Rows as they were before :meth:`standardised`, float64."""
        return Z.astype(np.float64) * self.x_scale_ + self.x_mean_

    def _check(self, rows: int) -> None:
        """ValueError for an option that makes no sense."""
        for name in ("members", "width", "depth", "epochs", "batch"):
            whole(self, name)
        one_of(self, "loss", LOSSES)
        one_of(self, "sharpness", SHARPNESS)
        number(self, "slope", 0.0, 1.0, closed=True)
        for name in ("rate", "rho", "r"):
            number(self, name, 0.0)
        for name in ("lam", "eta", "eps"):
            number(self, name, 0.0, closed=True)
        if whole(self, "validation", 0) > rows - 2:
            raise ValueError(f"validation={self.validation}: of {rows} rows 2 have to be fitted to")

    def _or_smaller(self) -> str:
        """The advice beside a smaller rate for a fit that grew without end."""
        return "" if self.sharpness == "none" else ", or a smaller lam"

    def _scale(self, X: Array, y: Array) -> None:
        self.x_mean_, self.y_mean_ = X.mean(0), float(y.mean())
        self.x_scale_, spread = X.std(0), float(y.std())
        self.x_scale_[self.x_scale_ == 0] = 1.0
        self.y_scale_ = spread if spread > 0 else 1.0

    def _penalty(self) -> Sharpness | None:
        if self.sharpness == "none":
            return None
        eta = self.eta if self.sharpness == "dual" else 0.0
        return Sharpness(self.lam, eta, self.eps, self.rho, self.r, self.clip)

    def _member(self, network: Network, Z: Array, t: Array, rng: np.random.Generator) -> tuple[Array, float]:
        """(parameters of a fitted member, its last lam)."""
        loss, penalty = LOSSES[self.loss](), self._penalty()
        vector = np.concatenate([network.start(rng), loss.bounds()])
        weights = np.ones(len(Z), np.float32)
        if self.bootstrap:
            weights = np.bincount(rng.integers(len(Z), size=len(Z)), minlength=len(Z)).astype(np.float32)
        adam, gradient = Adam(len(vector), self.rate), np.empty_like(vector)
        for rows in self._batches(len(Z), rng):
            seen = self._descend(network, loss, vector, Z[rows], t[rows], weights[rows], gradient)
            if penalty is not None:
                mean = partial(mean_gradient, network, X=Z[rows], of=len(rows))
                penalty.add(gradient, vector, mean(vector, seen=seen), mean)
            adam.step(vector, gradient)
        return vector, 0.0 if penalty is None else penalty.lam

    def _batches(self, rows: int, rng: np.random.Generator) -> Iterator[Array]:
        for _ in range(self.epochs):
            order = rng.permutation(rows)
            for start in range(0, rows, self.batch):
                yield order[start : start + self.batch]

    def _descend(
        self, network: Network, loss: Any, vector: Array, X: Array, t: Array, weights: Array, gradient: Array
    ) -> list[Array]:
        """Write the loss's gradient over ``gradient``, and return the forward pass of ``X``."""
        seen = network.forward(vector, X)
        _, slopes, bounds = loss.slopes(seen[-1], t, weights, vector[network.size :])
        network.backward(vector, seen, slopes, gradient)
        gradient[network.size :] = bounds
        return seen
