"""Sparse coding as a scikit-learn estimator: a dictionary learnt from batches of signals, under any of the rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sparselab.estimation.estimators.checks import is_number, number, one_line, one_of, whole
from sparselab.estimation.estimators.codes.infer import SOLVERS, Descent, Problem, after_step, safe, settle_rows, unit
from sparselab.estimation.estimators.codes.thresholds import rule_of

PULL = 0.1  # how strongly a batch's share of active units moves lam, per log unit
FARTHEST = 2.0  # log units by which one batch may be off
CALIBRATED = 2000  # signals on which the last lam is looked for
LOOKS = 12
CLOSE = 0.01  # relative distance from the target that ends the search
CHUNK = 256  # signals coded at once

Array = np.ndarray


class SparseCoding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn a dictionary whose sparse combinations make up the data (Rentzeperis et al. 2023, arXiv 2301.10002).

    Minimises ½||s - r A||² + penalty(r): for each batch first in the codes r (from zero, until they rest), then one gradient
    step in the dictionary A, whose rows have length 1. Data are taken as they are: centre each patch before.

    units: rows of the dictionary. penalty: ``soft``, ``hard`` (as released), ``hard_prox``, ``half``, ``cel0`` or ``lq``, with
    ``q`` in (0, 1). lam: its weight (a rule's threshold is lam times step_r; cel0 has its own form). target_active: the share
    of units that a signal shall use, in (0, 1); lam then only says where the search for it starts. solver: ``pg``, ``fista``
    or ``lca``. step_r, step_phi: sizes of the steps in codes and dictionary; a step that would diverge is shortened.
    decay: both rates fall as 1 / (1 + rate t / decay), or None. inner_max, inner_tol: most steps in the codes, and the
    relative change at which they rest. batch: signals a dictionary step. passes: over the data. random_state: the first
    dictionary, normal.

    After ``fit``: ``components_`` (units, features), ``lam_``, ``n_iter_`` (steps in the codes), ``n_batches_``,
    ``unsettled_`` (batches whose codes did not come to rest: they moved no dictionary).
    """

    def __init__(
        self,
        units: int = 100,
        penalty: str = "cel0",
        q: float = 0.5,
        lam: float = 0.1,
        target_active: float | None = None,
        solver: str = "pg",
        step_r: float = 0.05,
        step_phi: float = 5e-3,
        decay: float | None = None,
        inner_max: int = 5000,
        inner_tol: float = 1e-2,
        batch: int = 100,
        passes: int = 1,
        random_state: Any = None,
    ):
        self.units = units
        self.penalty = penalty
        self.q = q
        self.lam = lam
        self.target_active = target_active
        self.solver = solver
        self.step_r = step_r
        self.step_phi = step_phi
        self.decay = decay
        self.inner_max = inner_max
        self.inner_tol = inner_tol
        self.batch = batch
        self.passes = passes
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> SparseCoding:
        """Learn from ``X``, (n, features), batch after batch in the order of its rows. ``y`` is ignored."""
        with one_line():
            data = validate_data(self, X, dtype=[np.float64, np.float32])
        self._check()
        start = check_random_state(self.random_state).standard_normal((self.units, data.shape[1]))
        atoms = (start / np.sqrt(self.units)).astype(data.dtype)
        lam, steps, moved, seen, unsettled = float(self.lam), 0, 0, 0, 0
        for batch in self._batches(data):
            atoms = unit(atoms)
            problem = self._problem(atoms, lam)
            descent = SOLVERS[self.solver](problem, batch)
            taken, rests = after_step(descent, self.inner_max, self.inner_tol)
            steps, seen = steps + taken, seen + 1
            if self.target_active is not None:
                lam *= float(np.exp(PULL * np.clip(self._excess(descent.codes), -FARTHEST, FARTHEST)))
            if not rests:
                unsettled += 1
                continue
            descent.advance(taken - 1)  # one more step, at the last one's rate
            codes = descent.codes
            atoms = atoms + self._rate(moved) * (codes.T @ (batch - codes @ atoms))
            moved += 1
        if not np.isfinite(atoms).all():
            raise ValueError(
                f"the dictionary grew without end: scale the data, or write step_phi below {self.step_phi:g}"
            )
        self.components_ = unit(atoms)
        self.lam_ = lam if self.target_active is None else self._calibrated(data[-CALIBRATED:], lam)
        self.n_iter_, self.n_batches_, self.unsettled_ = steps, seen, unsettled
        return self

    def transform(self, X: Any) -> Array:
        """(n, units) codes of ``X``, each signal's coded by itself; zeros are exact."""
        check_is_fitted(self)
        with one_line():
            data = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._codes(data, self.lam_)

    def inverse_transform(self, X: Any) -> Array:
        """(n, features) what the codes ``X`` stand for."""
        check_is_fitted(self)
        with one_line():
            codes = check_array(X, dtype=[np.float64, np.float32])
        if codes.shape[1] != len(self.components_):
            raise ValueError(
                f"X has {codes.shape[1]} columns, and codes have {len(self.components_)}: one for each unit"
            )
        return codes @ self.components_

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error of ``X`` as its codes give it back."""
        return -float(((np.asarray(X) - self.inverse_transform(self.transform(X))) ** 2).mean())

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def _check(self) -> None:
        """ValueError for an option that makes no sense."""
        rule_of(self.penalty, self.q)
        one_of(self, "solver", SOLVERS)
        for name in ("units", "batch", "passes", "inner_max"):
            whole(self, name)
        for name in ("lam", "step_r", "step_phi", "inner_tol"):
            number(self, name, 0.0)
        if self.decay is not None and not (is_number(self.decay) and self.decay > 0):
            raise ValueError(f"decay={self.decay!r}: a number above 0, or None")
        share = self.target_active
        if share is not None and not (is_number(share) and 0 < share < 1):
            raise ValueError(f"target_active={self.target_active!r}: a share in (0, 1), or None")

    def _batches(self, data: Array) -> Iterator[Array]:
        for _ in range(self.passes):
            for start in range(0, len(data), self.batch):
                yield data[start : start + self.batch]

    def _problem(self, atoms: Array, lam: float) -> Problem:
        step = safe(atoms, self.step_r, SOLVERS[self.solver].guard)
        return Problem(atoms, rule_of(self.penalty, self.q), lam, step, self.decay)

    def _rate(self, t: int) -> float:
        return self.step_phi if self.decay is None else self.step_phi / (1 + self.step_phi / self.decay * t)

    def _codes(self, data: Array, lam: float) -> Array:
        problem = self._problem(self.components_.astype(data.dtype, copy=False), lam)
        parts = []
        for start in range(0, len(data), CHUNK):
            descent: Descent = SOLVERS[self.solver](problem, data[start : start + CHUNK])
            parts.append(settle_rows(descent, self.inner_max, self.inner_tol)[0])
        return np.concatenate(parts)

    def _excess(self, codes: Array) -> float:
        """log(share of active units / target_active); a code of all zeros counts as half an active unit."""
        assert self.target_active is not None
        return float(np.log(max((codes != 0).mean(), 0.5 / codes.size) / self.target_active))

    def _calibrated(self, data: Array, lam: float) -> float:
        """The weight at which codes of ``data`` are as active as asked for.

        The share falls about as 1 / lam, which gives the next guess; one outside of what is known already is the middle.
        """
        at, low, high = np.log(lam), -np.inf, np.inf
        best, nearest = at, np.inf
        for _ in range(LOOKS):
            excess = self._excess(self._codes(data, float(np.exp(at))))
            if abs(excess) < nearest:
                best, nearest = at, abs(excess)
            if nearest < CLOSE:
                break
            low, high = (at, high) if excess > 0 else (low, at)
            at += excess
            if not low < at < high:
                at = (low + high) / 2
        return float(np.exp(best))
