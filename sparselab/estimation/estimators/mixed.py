"""Mixed models: `tsallis_mixed`, a stand-in. The arithmetic is in :mod:`sparselab.estimation.estimators.heavy_tails`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator
from sparselab.estimation.estimators.nonconvex import LEAST
from sparselab.estimation.problems.repeated import GROUPED

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@ESTIMATORS.register("tsallis_mixed")
class TsallisMixed(Estimator):
    """A mixed model with a joint t distribution and SCAD, MCP or l1: a stand-in, not the thesis's model."""

    class Options(AnyOptions):
        q: float = Field(ge=1, lt=3, description="entropic index of one row, in [1, 3); 1 is Gaussian")
        penalty: Literal["scad", "mcp", "l1"] = Field(description="scad, mcp or l1")
        a: float = Field(description="of scad, above 2")
        gamma: float = Field(description="of mcp, above 1")
        lam: float | None = Field(ge=0, description="slope of the penalty at 0, at least 0, or null: chosen by BIC")
        n_lams: int = Field(ge=2, description="penalties that BIC chooses from (lam: null), at least 2")
        solver: Literal["prox_ncg", "prox"] = Field(description="prox_ncg or prox")
        tol: float = Field(gt=0, description="prox-gradient residual at which the fit ends, above 0")
        max_iter: int = Field(ge=1, description="most steps at one lam, at least 1")

    takes = (GROUPED,)
    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        o = self.options
        name, least = LEAST.get(o.penalty, ("", 0.0))
        if not name or getattr(o, name) > least:
            return []
        where = f"estimator.{name}={getattr(o, name):g}"
        return [Issue(where, f"{o.penalty} asks for more than {least:g}", "write 3.7")]

    def work(self, problem: Any) -> float:
        return 100.0 * problem.size() * (self.options.n_lams if self.options.lam is None else 1)

    def build(self, seed: int) -> BaseEstimator:
        from sparselab.estimation.estimators.heavy_tails.learner import TsallisMixedRegressor

        return TsallisMixedRegressor(**self.options.model_dump())

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return [
            self.build(seed).fit(data.rows, target, groups=data.groups)
            for data, target, seed in zip(X, y, seeds, strict=True)
        ]

    def report(self, fitted: Any) -> dict[str, float]:
        return {
            "standin": 1.0,
            "lam": fitted.lam_,
            "iterations": float(fitted.n_iter_),
            "evaluations": float(fitted.n_evaluations_),
            "converged": float(fitted.converged_),
            "sigma": fitted.sigma_,
        }
