"""Regression and classification under SCAD, MCP or l1. The arithmetic is in :mod:`sparselab.estimation.estimators.concave`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

LEAST = {"scad": ("a", 2.0), "mcp": ("gamma", 1.0)}


class NonconvexOptions(AnyOptions):
    """Options of both models."""

    penalty: Literal["scad", "mcp", "l1"] = Field(description="scad, mcp or l1")
    a: float = Field(description="of scad, above 2: it is flat from a · lam on")
    gamma: float = Field(description="of mcp, above 1: it is flat from gamma · lam on")
    lam: float | None = Field(gt=0, description="slope of the penalty at 0, above 0, or null: chosen on held-out rows")
    start: Literal["sign", "zero"] = Field(
        description="sign (of the covariances with y) or zero; a path starts at zero"
    )
    tol: float = Field(gt=0, description="change at which a method ends, above 0")
    max_iter: int = Field(ge=1, description="most iterations at one lam, at least 1")
    n_lams: int = Field(ge=2, description="points of the path (lam: null), at least 2")
    strong_rule: Literal["none", "correct", "repo"] = Field(
        description="columns left out along a path: none, correct, or repo (the published code's fault)"
    )
    validation_fraction: float = Field(gt=0, lt=1, description="share of the rows that choose lam, in (0, 1)")
    within: float | None = Field(
        description="count the iterations to within e^this of the best objective that the first-order methods find, or null"
    )


class Nonconvex(Estimator):
    """Base of `nonconvex_linear` and `nonconvex_logistic`."""

    Options: ClassVar[type[NonconvexOptions]] = NonconvexOptions
    options: Any

    def issues(self, problem: Any) -> list[Issue]:
        o, found = self.options, []
        name, least = LEAST.get(o.penalty, ("", 0.0))
        if name and getattr(o, name) <= least:
            value = getattr(o, name)
            found.append(Issue(f"estimator.{name}={value:g}", f"{o.penalty} asks for more than {least:g}", "write 3.7"))
        if o.within is not None and o.lam is None:
            found.append(
                Issue(f"estimator.within={o.within:g}", "a path has no single objective", "write estimator.lam=0.2")
            )
        rows = getattr(problem.options, "train", getattr(problem.options, "n", None))
        if o.lam is None and rows is not None and not 1 <= round(o.validation_fraction * rows) <= rows - 2:
            where = f"estimator.validation_fraction={o.validation_fraction:g}"
            found.append(Issue(where, f"of {rows} rows some have to choose lam and 2 to be fitted to", "write 0.5"))
        return found

    def work(self, problem: Any) -> float:
        return float(problem.size()) * (self.options.n_lams if self.options.lam is None else 10)

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        fitted = super().fit(X, y, seeds)
        if self.options.within is not None:
            from sparselab.estimation.estimators.concave.race import race

            for one in fitted:
                one.race_ = race(one, one.start_, self.options.within)
        return fitted

    def values(self) -> dict[str, Any]:
        """The options as arguments of the estimator that is built."""
        return {name: value for name, value in self.options.model_dump().items() if name != "within"}

    def report(self, fitted: Any) -> dict[str, float]:
        return {
            "lam": fitted.lam_,
            "iterations": float(fitted.n_iter_),
            "converged": float(fitted.converged_),
            "violations": float(fitted.violations_),
            **getattr(fitted, "race_", {}),
        }


@ESTIMATORS.register("nonconvex_linear")
class NonconvexLinear(Nonconvex):
    """Least squares by accelerated gradient (Yang et al., arXiv 2009.10629), proximal gradient or coordinate descent."""

    class Options(NonconvexOptions):
        solver: Literal["ag", "ag_original", "prox", "cd"] = Field(description="ag, ag_original, prox or cd")

    takes = ("regression",)

    def build(self, seed: int) -> BaseEstimator:
        from sparselab.estimation.estimators.concave.learner import NonconvexRegressor

        return NonconvexRegressor(**self.values(), random_state=seed % 2**32)


@ESTIMATORS.register("nonconvex_logistic")
class NonconvexLogistic(Nonconvex):
    """Logistic regression by the same first-order methods; the loss is half of the mean log loss."""

    class Options(NonconvexOptions):
        solver: Literal["ag", "ag_original", "prox"] = Field(description="ag, ag_original or prox")

    takes = ("classification",)

    def build(self, seed: int) -> BaseEstimator:
        from sparselab.estimation.estimators.concave.learner import NonconvexClassifier

        return NonconvexClassifier(**self.values(), random_state=seed % 2**32)
