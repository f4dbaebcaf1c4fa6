"""Sparse regression on ill-conditioned designs: `preconditioned_lasso`, a STAND-IN, and `omp`, `least_squares`, `best_subset`.

The arithmetic is in :mod:`sparselab.estimation.estimators.linear`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator

MOST = 500_000  # supports that best_subset tries, as estimators.linear.greedy has it, without numpy


class OnColumns(Estimator):
    """Base of estimators that look for ``k`` non-zeros among columns."""

    takes = ("regression",)
    Options: ClassVar[type[AnyOptions]] = AnyOptions
    most_samples: ClassVar[bool] = True  # False: k may be above the number of samples

    def issues(self, problem: Any) -> list[Issue]:
        k, columns = getattr(self.options, "k", None), getattr(problem, "columns", None)
        if k is None or columns is None:
            return []
        if k > columns:
            return [Issue(f"estimator.k={k}", f"there are {columns} columns", f"write at most {columns}")]
        if self.most_samples and k > problem.options.n:
            n = problem.options.n
            return [Issue(f"estimator.k={k}", f"there are {n} samples", f"write at most {n}")]
        return []


@ESTIMATORS.register("preconditioned_lasso")
class PreconditionedLasso(OnColumns):
    """The Lasso in features of a certified preconditioner: a stand-in for the algorithm of arXiv 2511.06211."""

    class Options(AnyOptions):
        preconditioner: Literal["identity", "difference", "auto_tree", "peel", "certified"] = Field(
            description="identity (the Lasso), difference, auto_tree, peel, or certified (the best certificate)"
        )
        tree: Literal["chain", "binary"] = Field(description="of difference: chain or binary (a heap's order)")
        step: Literal["raw", "unit"] = Field(
            description="differences of columns as they are, or of length 1: raw or unit"
        )
        lam: float | None = Field(ge=0, description="the penalty, at least 0, or null: as `penalty` says")
        penalty: Literal["theory", "cv"] = Field(description="theory (from sigma) or cv (five folds)")
        sigma: float | None = Field(ge=0, description="standard deviation of the noise, at least 0, or null: estimated")
        delta: float = Field(gt=0, lt=1, description="chance that the theory's penalty is too small, in (0, 1)")
        k: int | None = Field(ge=1, description="non-zeros that the certificate asks for, or null: 4 at most")
        certify_draws: int = Field(ge=1, description="random supports of the certificate, at least 1")
        path: int = Field(ge=0, description="penalties of a path beside it, or 0: none")
        solver: Literal["cd", "fista"] = Field(description="cd or fista")
        tol: float = Field(gt=0, description="duality gap over |y|^2 / N at which it ends, above 0")
        max_iter: int = Field(ge=1, description="most sweeps (cd) or steps (fista), at least 1")
        tau: float = Field(gt=0, lt=1, description="of peel: distance to a span that is near, in (0, 1)")
        share: float = Field(gt=0, lt=1, description="of peel: features that have to be near, in (0, 1)")
        rounds: int = Field(ge=0, description="of peel: most of them, at least 0")
        goal: float = Field(gt=0, description="of peel: rho over sqrt(k) at which it ends, above 0")

    options: Options
    most_samples = False

    def work(self, problem: Any) -> float:
        return float(problem.size()) * (100 + 20 * self.options.path)

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.linear.preconditioned import PreconditionedLasso

        values = self.options.model_dump()
        rule = values.pop("penalty")
        if values["lam"] is None:
            values["lam"] = rule
        return PreconditionedLasso(**values, random_state=seed)

    def report(self, fitted: Any) -> dict[str, float]:
        """``rho``, ``rho_90``: the certificate, where finite. ``preconditioned``: 1 where S mixes columns; of the fit."""
        rho = {"rho": fitted.certificate_.median, "rho_90": fitted.certificate_.high}
        return {
            **{name: value for name, value in rho.items() if math.isfinite(value)},
            "lam": fitted.lam_,
            "preconditioned": float(not fitted.preconditioner_.plain),
            "iterations": float(fitted.n_iter_),
        }


class SupportOptions(AnyOptions):
    """How many non-zeros are looked for."""

    k: int | None = Field(ge=1, description="non-zeros, at least 1, or null: 4 at most")


@ESTIMATORS.register("omp")
class OMP(OnColumns):
    """Orthogonal matching pursuit with k steps, on columns of one length."""

    Options = SupportOptions

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.linear.greedy import MatchingPursuit

        return MatchingPursuit(**self.options.model_dump())


@ESTIMATORS.register("least_squares")
class LeastSquares(OnColumns):
    """Ordinary least squares, the shortest of its solutions; with problem.given=support the oracle."""

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.linear.greedy import LeastSquares

        return LeastSquares()


@ESTIMATORS.register("best_subset")
class BestSubset(OnColumns):
    """The best of all supports of k columns: d^k time, so for few columns only."""

    Options = SupportOptions
    options: SupportOptions

    def issues(self, problem: Any) -> list[Issue]:
        found, columns, k = super().issues(problem), getattr(problem, "columns", 0), self.options.k or 4
        if not found and (count := math.comb(columns, min(k, columns))) > MOST:
            where = f"problem.d={columns}"
            found.append(Issue(where, f"there are {count:,} supports of {k}", f"choose d and k with at most {MOST:,}"))
        return found

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.linear.greedy import BestSubset

        return BestSubset(**self.options.model_dump())
