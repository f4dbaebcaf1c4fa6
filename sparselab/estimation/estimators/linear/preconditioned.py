"""The Lasso in features X S of a preconditioner S that a certificate vouches for. A STAND-IN for the paper's algorithm.

After Chandrasekaran, Meka & Stavropoulos (2025, arXiv 2511.06211): Phase 1 finds a preconditioner, Phase 2 solves. The text of
their algorithm could not be read, so Phase 1 here is another one; Phase 2 is the Lasso, whose bound is proven for any S.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from sparselab.estimation.estimators.checks import number, one_of, whole
from sparselab.estimation.estimators.linear.certificate import Certificate, certify
from sparselab.estimation.estimators.linear.checked import Checked, nonzeros
from sparselab.estimation.estimators.linear.features import Preconditioner
from sparselab.estimation.estimators.linear.peeling import peel
from sparselab.estimation.estimators.linear.proximal import SOLVERS, lasso
from sparselab.estimation.estimators.linear.trees import TREES, auto_tree, difference, identity

ROUTINES = ("identity", "difference", "auto_tree", "peel", "certified")
ROUNDS = 20  # of the scaled Lasso, in which the noise's size and the penalty settle
SHALLOW = 1e-3  # the last penalty of a path over the first


class PreconditionedLasso(Checked):
    """argmin |y - X S v|^2 / 2N + lam |v|_1, then S v. NOT the paper's algorithm: a stand-in with the same interface.

    preconditioner: the routine that makes S from X alone: ``identity`` (the Lasso of scaled columns), ``difference`` (along
    ``tree``), ``auto_tree`` (along the columns' minimum spanning tree), ``peel``, or ``certified``: of identity, auto_tree and
    peel the one with the least lam * rho at 90 % of random supports.
    tree: ``chain``, ``binary`` (a heap's order), or the number of its parent for each column (-1: a root).
    step: differences of columns as they are (``raw``) or of length 1 (``unit``).
    lam: ``theory`` (sigma sqrt(2 log(2m / delta) / N): at least |(X S)^T noise|_max / N with a probability of 1 - delta),
    ``cv`` (five folds), or a number. sigma: standard deviation of the noise, or None: estimated by the scaled Lasso.
    k: non-zeros that the certificate asks for; None: 4, or fewer where there are fewer columns. certify_draws: its supports.
    path: penalties of a path that is kept for whoever wants to look at it; 0: none.
    solver, tol, max_iter: see :func:`~sparselab.estimation.estimators.linear.proximal.lasso`.
    tau, share, rounds: of :func:`~sparselab.estimation.estimators.linear.peeling.peel`, which stops at rho <= goal sqrt(k).

    After ``fit``: ``coef_`` = S v, ``v_``, ``preconditioner_`` (S, its name and way back), ``certificate_`` (median and 90 %
    of rho), ``lam_``, ``sigma_`` (None where it was not needed), ``n_iter_``, with a path ``coef_path_`` (penalties, d).
    """

    def __init__(
        self,
        preconditioner: str = "certified",
        tree: Any = "chain",
        step: str = "raw",
        lam: float | str = "theory",
        sigma: float | None = None,
        delta: float = 0.05,
        k: int | None = None,
        certify_draws: int = 50,
        path: int = 0,
        solver: str = "cd",
        tol: float = 1e-4,
        max_iter: int = 2000,
        tau: float = 0.5,
        share: float = 0.25,
        rounds: int = 10,
        goal: float = 1.5,
        random_state: Any = None,
    ):
        self.preconditioner = preconditioner
        self.tree = tree
        self.step = step
        self.lam = lam
        self.sigma = sigma
        self.delta = delta
        self.k = k
        self.certify_draws = certify_draws
        self.path = path
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.tau = tau
        self.share = share
        self.rounds = rounds
        self.goal = goal
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> PreconditionedLasso:
        """Fit to ``X`` (n, d) and ``y`` (n,). ValueError, in one line, for what cannot be fitted."""
        X, y = self._checked(X, y)
        self._check()
        k = nonzeros(self, X, samples=False)
        self.preconditioner_, self.certificate_ = self._phase_one(X, k)
        F = self.preconditioner_.of(X)
        self.lam_, self.sigma_ = self._penalty(F, y)
        found, taken = self._solve(F, y, np.array([self.lam_]))
        self.v_, self.n_iter_ = found[:, 0], max(int(taken[0]), 1)
        self.coef_ = self.preconditioner_.S @ self.v_
        self.intercept_ = 0.0
        if self.path:
            most = np.abs(F.T @ y).max(initial=0.0) / len(y)
            lams = most * np.geomspace(1, SHALLOW, self.path)
            self.coef_path_ = (self.preconditioner_.S @ self._solve(F, y, lams)[0]).T
        return self

    def _solve(self, F: np.ndarray, y: np.ndarray, lams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lasso(F, y, lams, self.solver, self.tol, self.max_iter)

    def _phase_one(self, X: np.ndarray, k: int) -> tuple[Preconditioner, Certificate]:
        """S and its certificate, from X alone. All candidates are asked about the same supports."""
        seed = np.random.SeedSequence(self._entropy())

        def certified(S: Preconditioner) -> Certificate:
            return certify(X, S, k, self.certify_draws, np.random.default_rng(seed))

        def good(S: Preconditioner) -> bool:
            return certified(S).high <= self.goal * math.sqrt(k)

        routines = {
            "identity": lambda: identity(X),
            "difference": lambda: difference(X, self._parents(X.shape[1]), None, self.step),
            "auto_tree": lambda: auto_tree(X, self.step),
            "peel": lambda: peel(X, good, self.tau, self.share, rounds=self.rounds),
        }
        asked = ("identity", "auto_tree", "peel") if self.preconditioner == "certified" else (self.preconditioner,)
        found = [(S, certified(S)) for S in (routines[name]() for name in asked)]
        return min(found, key=lambda pair: pair[1].high * self._spread(pair[0].S.shape[1]))

    def _entropy(self) -> int | None:
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            return int(state.randint(2**31))
        if isinstance(state, np.random.Generator):
            return int(state.integers(2**63))
        return state

    def _parents(self, d: int) -> np.ndarray:
        if isinstance(self.tree, str):
            one_of(self, "tree", tuple(TREES))
            return TREES[self.tree](d)
        return np.asarray(self.tree)

    def _spread(self, m: int) -> float:
        """The largest of m standard normal numbers of either sign, with a probability of 1 - delta at most this."""
        return math.sqrt(2 * math.log(2 * max(m, 1) / self.delta))

    def _penalty(self, F: np.ndarray, y: np.ndarray) -> tuple[float, float | None]:
        """(lam, sigma)."""
        if not isinstance(self.lam, str):
            return number(self, "lam", 0.0, closed=True), None
        if self.lam == "cv":
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.linear_model import LassoCV

            folds = min(5, len(y))
            found = LassoCV(alphas=40, fit_intercept=False, cv=folds, tol=self.tol, max_iter=self.max_iter)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return float(found.fit(F, y).alpha_), None
        unit = self._spread(F.shape[1]) / math.sqrt(len(y))
        if self.sigma is not None:
            return float(self.sigma) * unit, float(self.sigma)
        sigma = float(np.sqrt(y @ y / len(y)))
        for _ in range(ROUNDS):
            v = self._solve(F, y, np.array([sigma * unit]))[0][:, 0]
            before, sigma = sigma, float(np.linalg.norm(y - F @ v) / math.sqrt(len(y)))
            if abs(sigma - before) <= 1e-3 * before:
                break
        return sigma * unit, sigma

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Differences along a tree that is not the data's own make l1 norms long, and the theory's penalty then kills the fit.
        tags.regressor_tags.poor_score = self.preconditioner in ("difference", "auto_tree")
        return tags

    def _check(self) -> None:
        one_of(self, "preconditioner", ROUTINES)
        one_of(self, "step", ("raw", "unit"))
        one_of(self, "solver", SOLVERS)
        if isinstance(self.lam, str):
            one_of(self, "lam", ("theory", "cv"))
        if self.sigma is not None:
            number(self, "sigma", 0.0, closed=True)
        for name, least in (("certify_draws", 1), ("path", 0), ("max_iter", 1), ("rounds", 0)):
            whole(self, name, least)
        number(self, "delta", 0.0, 1.0)
        for name in ("tol", "goal"):
            number(self, name, 0.0)
        for name in ("tau", "share"):
            number(self, name, 0.0, 1.0)
