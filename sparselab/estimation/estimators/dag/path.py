"""The central path: minimise mu * (score + lambda |W|_1) + H(W, s) for falling mu, by Adam with steps that stay inside.

One solver for CoLiDE (arXiv 2310.02895) and DAGMA (arXiv 2209.08037); they differ in the score. Steps, retries and
stopping follow the released code (SAMiatto/colide model.py). Many problems are followed side by side, each at its own
pace: of small matrices most of the time is the interpreter's. A problem gets the same bits alone and in company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sparselab.estimation.estimators.dag.acyclicity import logdet
from sparselab.estimation.estimators.dag.scores import LeastSquares

SHRINK_LIMIT = 1e-16  # a step size below which a stage ends where it is
LEAVES_ABOVE = 0.9  # outside the domain with s at most this: the stage fails; above, the step is halved
WIDEN = 0.1  # what a failed stage adds to s
EPS = 1e-8  # Adam's

Array = np.ndarray


@dataclass(frozen=True)
class Path:
    """How the path is followed.

    s:          the domain's parameter for each stage; the last one is repeated. stages: their number (T).
    warm_iter:  most steps of a stage; max_iter: of the last one. checkpoint: steps between two looks at the objective.
    tol:        relative change of the objective between two looks that ends a stage.
    domain_tol: entries of (sI - W∘W)^-1 may be this far below zero.
    """

    lambda1: float
    stages: int
    s: Sequence[float]
    mu_init: float
    mu_factor: float
    warm_iter: int
    max_iter: int
    lr: float
    betas: tuple[float, ...]  # two
    checkpoint: int
    tol: float
    domain_tol: float


@dataclass
class Solution:
    """W (d, d), the scale, and how it was reached. iterations: steps taken, those of failed stages included.

    converged: the last stage ended by ``tol``, not by its limit. retries: stages that failed and began again.
    """

    weights: Array
    scale: Array
    iterations: int
    converged: bool
    retries: int


def residual_of(weights: Array, covariance: Array) -> Array:
    """(..., d) the variances of x - W^T x."""
    difference = np.eye(weights.shape[-1]) - weights
    return (difference * (covariance @ difference)).sum(-2)


def objective(
    weights: Array, scale: Array, covariance: Array, score: LeastSquares, lambda1: float, mu: float, s: float
) -> float:
    """mu * (score + lambda |W|_1) + H(W, s) of one problem."""
    smooth = float(score.value(residual_of(weights, covariance), scale))
    return mu * (smooth + lambda1 * float(np.abs(weights).sum())) + logdet(weights, s)


def gradient(weights: Array, scale: Array, covariance: Array, lambda1: float, mu: float, s: float) -> Array:
    """The (sub)gradient of :func:`objective` in W; sign(0) = 0."""
    identity = np.eye(len(weights))
    inverse = np.linalg.inv(s * identity - weights * weights)
    smooth = -(covariance @ (identity - weights)) / scale
    return mu * (smooth + lambda1 * np.sign(weights)) + 2 * weights * inverse.T


def solve(covariances: Array, score: LeastSquares, path: Path) -> list[Solution]:
    """Follow the path from W = 0 for each of ``covariances`` (problems, d, d), of centred data."""
    found: list[Solution | None] = [None] * len(covariances)
    travel = _Travel(covariances, score, path)
    while len(travel.here.number):
        travel.step()
        for number, solution in travel.arrivals():
            found[number] = solution
    return [solution for solution in found if solution is not None]


@dataclass
class _State:
    """The problems under way, along the first axis of everything."""

    number: Array  # which problem it is
    covariance: Array
    floor: Array
    weights: Array
    scale: Array
    first: Array  # Adam's moments, and its last step
    second: Array
    step: Array
    pulled: Array  # covariance @ (I - W)
    begun: Array  # weights and scale at the beginning of the stage
    begun_scale: Array
    stage: Array
    mu: Array
    s: Array
    base: Array  # the stage's step size before it was halved inside the stage
    lr: Array
    taken: Array  # steps of this attempt of the stage
    before: Array  # the objective when it was last looked at
    iterations: Array
    retries: Array
    converged: Array
    arrived: Array

    def keep(self, these: Array) -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[these])


class _Travel:
    """Some problems on their way along the path."""

    def __init__(self, covariances: Array, score: LeastSquares, path: Path):
        many, d, _ = covariances.shape
        self.score, self.path, self.identity = score, path, np.eye(d)
        scale = score.start(covariances)

        def zeros() -> Array:
            return np.zeros((many, d, d))

        def each(value: float, kind: type = float) -> Array:
            return np.full(many, value, kind)

        self.here = _State(
            number=np.arange(many), covariance=covariances, floor=score.floor(covariances), weights=zeros(), scale=scale,
            first=zeros(), second=zeros(), step=zeros(), pulled=covariances.copy(), begun=zeros(), begun_scale=scale.copy(),
            stage=each(-1, int), mu=each(0), s=each(0), base=each(0), lr=each(0),
            taken=each(0, int), before=each(0), iterations=each(0, int), retries=each(0, int),
            converged=each(False, bool), arrived=each(False, bool),
        )  # fmt: skip
        for k in range(many):
            self._next_stage(k)

    def arrivals(self) -> list[tuple[int, Solution]]:
        """(number, solution) of the problems that have arrived since; they are followed no longer."""
        x = self.here
        if not x.arrived.any():
            return []
        done = [
            (
                int(x.number[k]),
                Solution(x.weights[k], x.scale[k], int(x.iterations[k]), bool(x.converged[k]), int(x.retries[k])),
            )
            for k in np.flatnonzero(x.arrived)
        ]
        x.keep(~x.arrived)
        return done

    def step(self) -> None:
        """One step of Adam for every problem; those that are due are looked at afterwards."""
        x, path = self.here, self.path
        beta1, beta2 = path.betas
        inverse = self._inside()

        mu = x.mu[:, None, None]
        grad = x.pulled / x.scale[:, None, :]
        grad *= -mu
        grad += (mu * path.lambda1) * np.sign(x.weights)
        inverse *= 2.0
        grad += x.weights * inverse.transpose(0, 2, 1)

        x.taken += 1
        x.iterations += 1
        x.first *= beta1
        x.first += (1 - beta1) * grad
        grad *= grad
        x.second *= beta2
        grad *= 1 - beta2
        x.second += grad
        np.divide(x.second, (1 - beta2**x.taken)[:, None, None], out=x.step)
        np.sqrt(x.step, out=x.step)
        x.step += EPS
        np.divide(x.first, x.step, out=x.step)
        x.step /= (1 - beta1**x.taken)[:, None, None]
        x.weights -= x.lr[:, None, None] * x.step

        difference = self.identity - x.weights
        np.matmul(x.covariance, difference, out=x.pulled)
        difference *= x.pulled
        x.scale = self.score.scale(difference.sum(1), x.floor)
        limit = np.where(x.stage == path.stages - 1, path.max_iter, path.warm_iter)
        for k in np.flatnonzero((x.taken % path.checkpoint == 0) | (x.taken == limit)):
            self._look(int(k), bool(x.taken[k] == limit[k]))

    def _look(self, k: int, last: bool) -> None:
        """End the stage of problem ``k`` if its objective stands still, or if this was its last step."""
        x = self.here
        now = objective(x.weights[k], x.scale[k], x.covariance[k], self.score, self.path.lambda1, x.mu[k], x.s[k])
        x.converged[k] = abs((x.before[k] - now) / x.before[k]) <= self.path.tol
        if x.converged[k] or last:
            self._next_stage(k)
        else:
            x.before[k] = now

    def _next_stage(self, k: int) -> None:
        x, path = self.here, self.path
        if x.stage[k] == path.stages - 1:
            x.arrived[k] = True
            return
        x.stage[k] += 1
        x.mu[k] = path.mu_init * path.mu_factor ** int(x.stage[k])
        x.s[k] = path.s[min(int(x.stage[k]), len(path.s) - 1)]
        x.base[k] = path.lr
        x.begun[k], x.begun_scale[k] = x.weights[k], x.scale[k]
        self._begin(k)

    def _begin(self, k: int) -> None:
        """The stage from its beginning: moments at zero."""
        x = self.here
        x.weights[k], x.scale[k] = x.begun[k], x.begun_scale[k]
        x.first[k] = x.second[k] = 0.0
        x.lr[k], x.taken[k], x.before[k] = x.base[k], 0, 1e16
        x.pulled[k] = x.covariance[k] @ (self.identity - x.weights[k])

    def _inside(self) -> Array:
        """(sI - W∘W)^-1 of every problem, once each is inside its domain.

        One that has left it takes its last step back and half of it instead; or begins the stage again with a wider
        domain and a smaller step, where s is small or nothing can be taken back.
        """
        x, path = self.here, self.path
        inverse = np.linalg.inv(x.s[:, None, None] * self.identity - x.weights * x.weights)
        outside = ~(inverse.min(axis=(1, 2)) >= -path.domain_tol)  # NaN is outside too
        for k in np.flatnonzero(outside):
            while not inverse[k].min() >= -path.domain_tol:
                if x.taken[k] == 0 or x.s[k] <= LEAVES_ABOVE:
                    # Once s is above LEAVES_ABOVE and wide enough for the first step, a stage cannot fail: this ends.
                    x.s[k], x.base[k] = x.s[k] + WIDEN, x.base[k] * 0.5
                    x.retries[k] += 1
                    self._begin(int(k))
                else:
                    self._half_a_step(int(k))
                inverse[k] = np.linalg.inv(x.s[k] * self.identity - x.weights[k] * x.weights[k])
        return inverse

    def _half_a_step(self, k: int) -> None:
        x = self.here
        x.weights[k] += x.lr[k] * x.step[k]
        x.lr[k] *= 0.5
        if x.lr[k] <= SHRINK_LIMIT:
            x.converged[k] = False
            self._next_stage(k)
            return
        x.weights[k] -= x.lr[k] * x.step[k]
        difference = self.identity - x.weights[k]
        x.pulled[k] = x.covariance[k] @ difference
        x.scale[k] = self.score.scale((difference * x.pulled[k]).sum(0), x.floor[k])
