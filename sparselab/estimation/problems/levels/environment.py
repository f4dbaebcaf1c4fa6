"""Oracles of a two-level problem: gradients, exact or of samples, each of them counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from sparselab.estimation.problems.levels.instance import Array, Instance, Rows

GAPS = ("value_gap", "gradient_gap")
UPPER_LEVEL = ("upper_x", "upper_y")


@dataclass(frozen=True)
class Answer:
    """A solver's solution. z minimises g(x, .), y the penalised lower level, both as well as it could.

    sigma: the penalty parameter at the end, where there is one. steps: outer steps taken.
    compared: (value, gradient) of the penalty function at each of the instance's probes, from a solver that looks there.
    """

    x: Array
    y: Array
    z: Array
    sigma: float | None = None
    steps: int = 0
    compared: Sequence[tuple[float, Array]] = ()


class Sample:
    """One draw xi of an oracle's randomness (``batch`` of them, averaged).

    Asked twice at one point, it says the same, unless the oracle is rough without end (``roughness=None``).
    """

    def __init__(self, environment: Environment, batch: int | None):
        self.batch = batch
        self.rows: Rows = None
        self._environment, self._known = environment, {}  # type: ignore[var-annotated]
        rng, sizes = environment.rng, environment.instance.rows
        if batch is not None and sizes != (1, 1):
            upper, lower = (rng.integers(size, size=min(batch, size)) for size in sizes)
            self.rows = upper, lower

    def noise(self, what: str, x: Array, y: Array, size: int) -> Array:
        """The oracle's error, (size,), of standard deviation noise / sqrt(batch) in every coordinate."""
        e = self._environment
        scale = e.noise / sqrt(self.batch or 1)
        if e.roughness is None:  # nothing in common between two points
            return scale * e.rng.standard_normal(size)
        if what not in self._known:
            direction = e.rng.standard_normal(len(x) + len(y)) if e.roughness else np.zeros(len(x) + len(y))
            self._known[what] = e.roughness * direction, e.rng.uniform(0, 2 * np.pi, size)
        direction, phase = self._known[what]
        at = float(direction[: len(x)] @ x + direction[len(x) :] @ y)
        return scale * sqrt(2) * np.cos(phase + at)


class Environment:
    """An instance behind oracles.

    noise:     standard deviation of a coordinate of a sampled gradient; 0 where the oracle is exact. Finite sums sample
               their rows instead.
    roughness: how fast the error of one sample changes with the point: its mean-squared smoothness constant is
               noise * roughness in every coordinate, sqrt(size) times that for the whole gradient. None: errors at two
               points are independent (no mean-squared smoothness).
    eps:       the run is over when the root of the mean of |G(x)|² over the iterates so far is at most eps, G being the
               projected true hypergradient; None: never.
    budget:    the run is over when so many oracle calls were made.

    A call is one sample of one of the four partial gradients; the truth is looked at without being counted.
    """

    def __init__(
        self,
        instance: Instance,
        rng: np.random.Generator,
        noise: float = 0.0,
        roughness: float | None = 0.0,
        eps: float | None = None,
        budget: int | None = None,
    ):
        self.instance, self.rng, self.noise, self.roughness = instance, rng, noise, roughness
        self.eps, self.budget = eps, budget
        self.calls = self.products = self.visits = 0
        self.reached = False
        self._squares = 0.0

    @property
    def exact(self) -> bool:
        """True where a sample of one gives the gradient itself."""
        return not self.noise and self.instance.rows == (1, 1)

    def sample(self, batch: int | None) -> Sample:
        """A fresh sample of ``batch``; None: everything, without error (ValueError where there is always some)."""
        if batch is None and self.noise:
            raise ValueError("gradients of this oracle are never exact: ask for a batch of samples")
        return Sample(self, batch)

    def upper_x(self, x: Array, y: Array, sample: Sample) -> Array:
        """The gradient of f in x, (p,)."""
        return self._ask("upper_x", x, y, sample)

    def upper_y(self, x: Array, y: Array, sample: Sample) -> Array:
        """The gradient of f in y, (q,)."""
        return self._ask("upper_y", x, y, sample)

    def lower_x(self, x: Array, y: Array, sample: Sample) -> Array:
        """The gradient of g in x, (p,)."""
        return self._ask("lower_x", x, y, sample)

    def lower_y(self, x: Array, y: Array, sample: Sample) -> Array:
        """The gradient of g in y, (q,)."""
        return self._ask("lower_y", x, y, sample)

    def lower_yy(self, x: Array, y: Array, v: Array) -> Array:
        """The Hessian of g in y times v, exact; counted as ``products``."""
        self.products += 1
        return self.instance.lower_yy(x, y, v)

    def lower_xy(self, x: Array, y: Array, v: Array) -> Array:
        """The mixed second derivative of g times v, exact; counted as ``products``."""
        self.products += 1
        return self.instance.lower_xy(x, y, v)

    def _ask(self, what: str, x: Array, y: Array, sample: Sample) -> Array:
        rows = self.instance.rows[0 if what in UPPER_LEVEL else 1]
        self.calls += rows if sample.batch is None else min(sample.batch, rows) if rows > 1 else sample.batch
        gradient: Array = getattr(self.instance, what)(x, y, sample.rows)
        if self.noise and sample.batch is not None:
            gradient = gradient + sample.noise(what, x, y, len(gradient))
        return gradient

    def stationarity(self, x: Array) -> float | None:
        """|G(x)|: the length of the step that a unit step along the true hypergradient makes, projected on X."""
        gradient = self.instance.gradient(x)
        if gradient is None:
            return None
        return float(np.linalg.norm(x - self.instance.project_x(x - gradient)))

    def over(self, x: Array) -> bool:
        """Tell the environment the next iterate; True where the solver may stop. ValueError for what is not finite."""
        self.visits += 1
        if not np.isfinite(x).all():
            raise ValueError(f"x is no longer finite after {self.visits} steps: write a smaller solver.lr_x")
        if self.eps is not None:
            at = self.stationarity(x)
            if at is not None:
                self._squares += at**2
                self.reached = sqrt(self._squares / self.visits) <= self.eps
        return self.reached or (self.budget is not None and self.calls >= self.budget)

    def measure(self, answer: Answer) -> dict[str, float]:
        """``calls`` (and their decimal logarithm), ``products`` with second derivatives; the rest where known.

        With ``eps``: ``reached``; ``eps_reached``, which is eps, and only there where it was reached; ``over_eps``, the root
        mean square of |G(x)| over the iterates, over eps, at the end.
        ``value`` is psi(x), ``grad_norm`` |G(x)|; ``value_gap``, ``gradient_gap`` the largest distances of the penalty
        function from psi at the probes (``log10_...`` their decimal logarithms), ``value_error``, ``gradient_error`` from
        its own closed form.
        """
        instance = self.instance
        scores: dict[str, float] = {"calls": float(self.calls), "products": float(self.products)}
        scores |= {"log10_calls": float(np.log10(max(self.calls, 1))), "steps": float(answer.steps)}
        if answer.sigma is not None:
            scores["sigma"] = answer.sigma
        if self.eps is not None:
            scores |= {"eps": self.eps, "reached": float(self.reached)}
            if self.reached:
                scores["eps_reached"] = self.eps
            if self._squares:
                scores["over_eps"] = sqrt(self._squares / self.visits) / self.eps
        if (value := instance.value(answer.x)) is not None:
            scores |= {"value": value, "grad_norm": self.stationarity(answer.x) or 0.0}
        if answer.compared and answer.sigma is not None:
            scores |= self._compare(answer.compared, answer.sigma)
        return scores | instance.judge(answer.x, answer.z)

    def _compare(self, found: Sequence[tuple[float, Array]], sigma: float) -> dict[str, float]:
        instance = self.instance
        pairs: dict[str, list[float]] = {}

        def add(name: str, apart: Any) -> None:
            pairs.setdefault(name, []).append(float(np.linalg.norm(apart)))

        for x, (value, gradient) in zip(instance.probes, found, strict=True):
            true, known = instance.value(x), instance.penalised(x, sigma)
            if true is not None:
                add("value_gap", value - true)
                add("gradient_gap", gradient - instance.gradient(x))
            if known is not None:
                add("value_error", value - known[0])
                add("gradient_error", gradient - known[1])
        worst = {name: max(values) for name, values in pairs.items()}
        logs = {f"log10_{name}": float(np.log10(worst[name])) for name in GAPS if worst.get(name, 0.0) > 0}
        return worst | logs
