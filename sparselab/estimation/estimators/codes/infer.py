"""Codes of data for a given dictionary: minimise ½ ||s - r A||² + cost(r) for each row s, by one of three ways.

Rows of ``data`` (n, m) are signals, rows of ``atoms`` (units, m) the dictionary's elements, rows of a code (n, units) what a
signal is made of: s ≈ r A. Every way starts from zero codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparselab.estimation.estimators.codes.thresholds import Rule

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """A dictionary, a rule and its weight, and the rate of the steps.

    step: the first step's size, which decides the threshold all along. decay: steps are step / (1 + step t / decay), or
    None: they stay.
    """

    atoms: Array
    rule: Rule
    lam: float
    step: float
    decay: float | None = None

    def rate(self, t: int) -> float:
        """The size of step ``t``, which counts from 0."""
        return self.step if self.decay is None else self.step / (1 + self.step / self.decay * t)

    def objective(self, data: Array, codes: Array) -> Array:
        """(n,) what is minimised."""
        left = data - codes @ self.atoms
        return 0.5 * (left * left).sum(1) + self.rule.cost(codes, self.lam).sum(1)


class Descent(ABC):
    """Codes on their way. ``codes`` (n, units) is where they are.

    guard: the largest step times the largest curvature; from 2 on gradient steps grow without end.
    """

    guard: ClassVar[float] = 1.9

    def __init__(self, problem: Problem, data: Array):
        self.problem, self.data = problem, data
        self.codes = np.zeros((len(data), len(problem.atoms)), data.dtype)

    @property
    def state(self) -> Array:
        """(n, units) what has come to rest when the codes have."""
        return self.codes

    @abstractmethod
    def advance(self, t: int) -> None:
        """Take step ``t``; ``codes`` and ``state`` become new arrays."""

    def keep(self, rows: Array) -> None:
        """Go on with some of the rows only."""
        self.data, self.codes = self.data[rows], self.codes[rows]

    def _slope(self, at: Array) -> Array:
        """Minus the gradient of the squared error."""
        return (self.data - at @ self.problem.atoms) @ self.problem.atoms.T


class ProximalGradient(Descent):
    """ISTA: a gradient step, then the threshold."""

    def advance(self, t: int) -> None:
        p = self.problem
        u = self._slope(self.codes)
        u *= p.rate(t)
        u += self.codes
        self.codes = p.rule.shrink(u, p.lam, p.step)


class Fista(Descent):
    """FISTA (Beck & Teboulle 2009) with O'Donoghue and Candès's restart, row by row.

    For penalties that are not convex nothing is promised; it is a way of going faster.
    """

    guard = 1.3  # with momentum steps grow from 4/3 on

    def __init__(self, problem: Problem, data: Array):
        super().__init__(problem, data)
        self.ahead = self.codes
        self.momentum = np.ones((len(data), 1), data.dtype)

    def advance(self, t: int) -> None:
        p = self.problem
        new = p.rule.shrink(self.ahead + p.rate(t) * self._slope(self.ahead), p.lam, p.step)
        moved = new - self.codes
        uphill = ((self.ahead - new) * moved).sum(1, keepdims=True) > 0
        before = np.where(uphill, 1, self.momentum)
        self.momentum = ((1 + np.sqrt(1 + 4 * before**2)) / 2).astype(new.dtype)
        self.ahead = new + np.where(uphill, 0, (before - 1) / self.momentum) * moved
        self.codes = new

    def keep(self, rows: Array) -> None:
        super().keep(rows)
        self.ahead, self.momentum = self.ahead[rows], self.momentum[rows]


class Lca(Descent):
    """Locally competitive neurons (Rozell et al. 2008): potentials leak, are driven, and inhibit each other through codes.

    Du = step (A s - u - (A A^T - I) r), r = T(u): at rest r = T(r + A (s - r A)), proximal gradient's at a step of 1.
    """

    def __init__(self, problem: Problem, data: Array):
        super().__init__(problem, data)
        self.potential = self.codes

    @property
    def state(self) -> Array:
        """The potentials: codes are zero, and do not change, while potentials below the threshold still rise."""
        return self.potential

    def advance(self, t: int) -> None:
        p = self.problem
        drive = self._slope(self.codes)
        drive += self.codes
        drive -= self.potential
        self.potential = self.potential + p.rate(t) * drive
        self.codes = p.rule.shrink(self.potential, p.lam, 1.0)

    def keep(self, rows: Array) -> None:
        super().keep(rows)
        self.potential = self.potential[rows]


SOLVERS: dict[str, type[Descent]] = {"pg": ProximalGradient, "fista": Fista, "lca": Lca}


def unit(atoms: Array) -> Array:
    """The atoms at length 1; one of almost no length stays almost nothing."""
    return atoms / np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-8)


def safe(atoms: Array, step: float, guard: float) -> float:
    """``step``, or where the dictionary's squared norm makes that diverge, the largest step that does not.

    Args:
        atoms: (units, m)
        step: what is asked for
        guard: of the way of descent
    """
    small = atoms.T @ atoms if atoms.shape[0] > atoms.shape[1] else atoms @ atoms.T
    curvature = float(np.linalg.eigvalsh(small)[-1])
    return min(step, guard / curvature) if curvature > 0 else step


def after_step(descent: Descent, most: int, tol: float) -> tuple[int, bool]:
    """Advance all rows together until ||r_new - r|| < tol (tol + ||r||) in spectral norms, as the released code does.

    Returns (steps taken, whether that was reached within ``most`` of them). A spectral norm costs more than a step, so it is
    worked out only where a lower bound of the change's and an upper bound of the codes' do not decide.
    """
    ceiling = 0.0  # at least the norm of the state, which is zero
    for t in range(most):
        before = descent.state
        descent.advance(t)
        change = descent.state - before
        if _floor(change) < tol * (tol + ceiling):
            ceiling = _norm(before)
            if _norm(change) < tol * (tol + ceiling):
                return t + 1, True
        ceiling += float(np.linalg.norm(change))
    return most, False


def settle_rows(descent: Descent, most: int, tol: float) -> tuple[Array, int, Array]:
    """Advance each row until its own change is small in that sense: a row's code knows nothing of the other rows.

    Returns (codes, steps of the slowest row, whether each row got there).
    """
    codes = np.zeros_like(descent.codes)
    still = np.arange(len(codes))
    t = 0
    while t < most and len(still):
        before = descent.state
        descent.advance(t)
        t += 1
        moved = np.linalg.norm(descent.state - before, axis=1)
        going = ~(moved < tol * (tol + np.linalg.norm(before, axis=1)))  # NaN never comes to rest
        if not going.all():
            codes[still[~going]] = descent.codes[~going]
            still = still[going]
            descent.keep(going)
    codes[still] = descent.codes
    there = np.ones(len(codes), bool)
    there[still] = False
    return codes, t, there


def _floor(matrix: Array) -> float:
    """At most the spectral norm, and close to it: two rounds of the power method from the longest row."""
    direction = matrix[(matrix * matrix).sum(1).argmax()]
    for _ in range(2):
        size = np.linalg.norm(direction)
        if size == 0:
            return 0.0
        image = matrix @ (direction / size)
        direction = image @ matrix
    return float(np.linalg.norm(image)) * (1 - 1e-6)  # rounding may not lift it above the norm


def _norm(matrix: Array) -> float:
    """The spectral norm, from the smaller Gram matrix."""
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(max(np.linalg.eigvalsh(small)[-1], 0.0)))
