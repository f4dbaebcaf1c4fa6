"""The central path: minimise mu * (score + lambda |W|_1) + H(W, s) for falling mu, by Adam with steps that stay inside.

One solver for CoLiDE (arXiv 2310.02895) and DAGMA (arXiv 2209.08037); they differ in the score. Steps, retries and
stopping follow the released code (SAMiatto/colide model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparselab.estimators.dag.acyclicity import logdet
from sparselab.estimators.dag.scores import LeastSquares

SHRINK_LIMIT = 1e-16  # a step size below which a stage ends where it is
LEAVES_ABOVE = 0.9  # outside the domain with s at most this: the stage fails; above, the step is halved
WIDEN = 0.1  # what a failed stage adds to s
EPS = 1e-8  # Adam's


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
    betas: tuple[float, float]
    checkpoint: int
    tol: float
    domain_tol: float


@dataclass
class Solution:
    """W, the scale, and how it was reached. converged: the last stage ended by ``tol``, not by its limit."""

    weights: np.ndarray
    scale: np.ndarray
    iterations: int = 0
    converged: bool = False
    retries: int = 0


def solve(covariance: np.ndarray, score: LeastSquares, path: Path) -> Solution:
    """Follow the path from W = 0. covariance: (d, d) of centred data."""
    here = Solution(np.zeros_like(covariance), score.start(covariance))
    mu = path.mu_init
    for stage in range(path.stages):
        s = path.s[min(stage, len(path.s) - 1)]
        lr = path.lr
        limit = path.max_iter if stage == path.stages - 1 else path.warm_iter
        while not _stage(here, covariance, score, path, mu, s, lr, limit):
            # Once s is above LEAVES_ABOVE and wide enough for the first step, a stage cannot fail: this ends.
            s, lr = s + WIDEN, lr * 0.5
            here.retries += 1
        mu *= path.mu_factor
    return here


def objective(
    weights: np.ndarray,
    scale: np.ndarray,
    covariance: np.ndarray,
    score: LeastSquares,
    lambda1: float,
    mu: float,
    s: float,
) -> float:
    """mu * (score + lambda |W|_1) + H(W, s)."""
    difference = np.eye(len(weights)) - weights
    residual = np.einsum("ij,ij->j", difference, covariance @ difference)
    return mu * (score.value(residual, scale) + lambda1 * float(np.abs(weights).sum())) + logdet(weights, s)


def gradient(
    weights: np.ndarray,
    scale: np.ndarray,
    covariance: np.ndarray,
    score: LeastSquares,
    lambda1: float,
    mu: float,
    s: float,
) -> np.ndarray:
    """The (sub)gradient of :func:`objective` in W; sign(0) = 0."""
    inverse = np.linalg.inv(s * np.eye(len(weights)) - weights * weights)
    smooth = -(covariance @ (np.eye(len(weights)) - weights)) * score.pull(scale)
    return mu * (smooth + lambda1 * np.sign(weights)) + 2 * weights * inverse.T


def _stage(
    here: Solution,
    covariance: np.ndarray,
    score: LeastSquares,
    path: Path,
    mu: float,
    s: float,
    lr: float,
    limit: int,
) -> bool:
    """One stage; ``here`` is moved unless it fails (False). Steps taken in vain are counted too."""
    identity = np.eye(len(covariance))
    domain = s * identity
    beta1, beta2 = path.betas
    weights, scale = here.weights.copy(), here.scale
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    step = np.zeros_like(weights)
    difference = identity - weights
    pulled = covariance @ difference
    before = 1e16
    decay1 = decay2 = 1.0
    shrinkage = mu * path.lambda1
    converged = False

    for iteration in range(1, limit + 1):
        here.iterations += 1
        inverse = np.linalg.inv(domain - weights * weights)
        while not inverse.min() >= -path.domain_tol:  # NaN is outside too
            if iteration == 1 or s <= LEAVES_ABOVE:
                return False
            weights += lr * step
            lr *= 0.5
            if lr <= SHRINK_LIMIT:
                here.weights, here.scale, here.converged = weights, scale, False
                return True
            weights -= lr * step
            np.subtract(identity, weights, out=difference)
            np.matmul(covariance, difference, out=pulled)
            scale = score.scale(np.einsum("ij,ij->j", difference, pulled))
            inverse = np.linalg.inv(domain - weights * weights)

        # gradient() on what is at hand, in place: this is the loop that everything waits for
        grad = pulled * (-mu * score.pull(scale))
        grad += shrinkage * np.sign(weights)
        inverse *= 2.0
        grad += weights * inverse.T

        decay1, decay2 = decay1 * beta1, decay2 * beta2
        first *= beta1
        first += (1 - beta1) * grad
        grad *= grad
        second *= beta2
        grad *= 1 - beta2
        second += grad
        np.multiply(second, 1 / (1 - decay2), out=step)
        np.sqrt(step, out=step)
        step += EPS
        np.divide(first, step, out=step)
        step *= 1 / (1 - decay1)
        weights -= lr * step

        np.subtract(identity, weights, out=difference)
        np.matmul(covariance, difference, out=pulled)
        scale = score.scale(np.einsum("ij,ij->j", difference, pulled))
        if iteration % path.checkpoint == 0 or iteration == limit:
            now = objective(weights, scale, covariance, score, path.lambda1, mu, s)
            if abs((before - now) / before) <= path.tol:
                converged = True
                break
            before = now
    here.weights, here.scale, here.converged = weights, scale, converged
    return True
