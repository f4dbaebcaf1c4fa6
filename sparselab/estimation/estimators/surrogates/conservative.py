"""Conservative objective models: surrogates that are kept low where climbing them leads (Trabucco et al. 2021)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sparselab.estimation.estimators.checks import number, whole
from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor
from sparselab.estimation.estimators.surrogates.network import Adam, Network
from sparselab.estimation.estimators.surrogates.surface import Surface

Array = np.ndarray


class ConservativeRegressor(SurrogateRegressor):
    """COMs (Trabucco et al. 2021, arXiv 2107.06882): mean((g(x) - y)²) + alpha mean(g(x') - g(x)).

    x' is where ``particle_steps`` steps of gradient ascent of length particle_rate sqrt(features) lead from the rows x of a
    batch. alpha rises (Adam on its logarithm, alpha_rate) while the mean overestimation g(x') - g(x) is above ``limit``, in
    standard deviations of y. All else as in :class:`SurrogateRegressor`, with the squared loss, whose columns are standardised
    too. After ``fit`` there is also ``alpha_``, the mean over members.
    """

    def __init__(
        self,
        members: int = 1,
        width: int = 2048,
        depth: int = 2,
        slope: float = 0.0,
        epochs: int = 50,
        batch: int = 128,
        rate: float = 3e-4,
        validation: int = 0,
        bootstrap: bool = False,
        sharpness: str = "dual",
        lam: float = 1e-3,
        eta: float = 1e-3,
        eps: float = 0.1,
        rho: float = 0.05,
        r: float = 0.05,
        clip: bool = False,
        alpha: float = 0.1,
        alpha_rate: float = 0.01,
        limit: float = 0.5,
        particle_rate: float = 0.05,
        particle_steps: int = 50,
        random_state: Any = None,
    ):
        super().__init__(
            members=members,
            width=width,
            depth=depth,
            slope=slope,
            loss="squared",
            epochs=epochs,
            batch=batch,
            rate=rate,
            validation=validation,
            bootstrap=bootstrap,
            sharpness=sharpness,
            lam=lam,
            eta=eta,
            eps=eps,
            rho=rho,
            r=r,
            clip=clip,
            random_state=random_state,
        )
        self.alpha = alpha
        self.alpha_rate = alpha_rate
        self.limit = limit
        self.particle_rate = particle_rate
        self.particle_steps = particle_steps

    def fit(self, X: Any, y: Any) -> ConservativeRegressor:
        """Fit every member to ``X`` (n, features) and ``y`` (n,)."""
        self._alphas: list[Array] = []
        super().fit(X, y)
        self.alpha_ = float(np.exp(np.concatenate(self._alphas)).mean())
        del self._alphas
        return self

    def _check(self, rows: int) -> None:
        super()._check(rows)
        whole(self, "particle_steps")
        for name in ("alpha", "alpha_rate", "particle_rate"):
            number(self, name, 0.0)
        number(self, "limit", -np.inf)

    def _or_smaller(self) -> str:
        return super()._or_smaller() + ", or a smaller alpha or alpha_rate"

    def _member(self, network: Network, Z: Array, t: Array, rng: np.random.Generator) -> tuple[Array, float]:
        self._alphas.append(np.array([np.log(self.alpha)]))
        self._adam = Adam(1, self.alpha_rate, np.float64)
        found = super()._member(network, Z, t, rng)
        del self._adam
        return found

    def _descend(
        self, network: Network, loss: Any, vector: Array, X: Array, t: Array, weights: Array, gradient: Array
    ) -> list[Array]:
        seen = super()._descend(network, loss, vector, X, t, weights, gradient)
        step = self.particle_rate * np.sqrt(X.shape[1])
        far = climbed(Surface(network, vector[None]), X, step, self.particle_steps)
        there = network.forward(vector, far)
        log_alpha = self._alphas[-1]
        alpha, over = float(np.exp(log_alpha[0])), float((there[-1] - seen[-1])[:, 0].mean())
        share, part = np.full_like(seen[-1], alpha / len(X)), partial(network.backward, into=np.empty_like(gradient))
        gradient += part(vector, there, share)
        gradient -= part(vector, seen, share)
        self._adam.step(log_alpha, np.array([alpha * (self.limit - over)]))
        return seen


def climbed(surface: Surface, Z: Array, step: float, steps: int, aggregate: str = "mean") -> Array:
    """Rows of ``Z`` after so many steps of gradient ascent, each by step times the gradient."""
    length = np.asarray(step, surface.members.dtype)
    for _ in range(steps):
        Z = Z + length * surface.climbs(Z, aggregate)
    return Z
