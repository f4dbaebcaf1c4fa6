"""Estimators of acyclic graphs: `colide`, `dagma`, `sort_n_regress`. The arithmetic is in :mod:`.dag`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator

if TYPE_CHECKING:
    from sparselab.estimation.estimators.dag.learners import DAGMA, CoLiDE, SortNRegress


class PathOptions(AnyOptions):
    """A penalised score followed along a central path."""

    lambda1: float = Field(ge=0, description="weight of |W|_1, at least 0")
    stages: int = Field(ge=1, description="stages of the path (T), at least 1")
    s: list[float] = Field(
        min_length=1, description="the domain for each stage, such as [1,.9,.8,.7]; the last repeats"
    )
    mu_init: float = Field(gt=0, description="above 0")
    mu_factor: float = Field(gt=0, lt=1, description="in (0, 1)")
    warm_iter: int = Field(ge=1, description="most steps of a stage, at least 1")
    max_iter: int = Field(ge=1, description="most steps of the last stage, at least 1")
    lr: float = Field(gt=0, description="Adam's step, above 0")
    betas: list[float] = Field(min_length=2, max_length=2, description="Adam's decays, such as [.99,.999]")
    checkpoint: int = Field(ge=1, description="steps between two looks at the objective, at least 1")
    tol: float = Field(ge=0, description="relative change of the objective that ends a stage, at least 0")
    domain_tol: float = Field(ge=0, description="how far below 0 an entry of the inverse may be")
    threshold: float = Field(ge=0, description="weights of at most this size are no edges")


class PathEstimator(Estimator):
    """Base of the central path's estimators."""

    Options: ClassVar[type[PathOptions]] = PathOptions
    takes = ("graph",)
    options: PathOptions

    together = 32

    def issues(self, problem: Any) -> list[Issue]:
        o, found = self.options, []
        if min(o.s) <= 0:
            found.append(Issue("estimator.s", "has a domain that is not above 0", "write numbers above 0"))
        if not all(0 <= beta < 1 for beta in o.betas):
            found.append(Issue("estimator.betas", "has a decay outside [0, 1)", "write such as [.99,.999]"))
        return found

    def work(self, problem: Any) -> float:
        o = self.options
        return float((o.stages - 1) * o.warm_iter + o.max_iter) * problem.size() ** 2

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return self.build(0).fit_each(X)  # side by side; nothing is drawn

    def build(self, seed: int) -> DAGMA:
        raise NotImplementedError

    def _values(self) -> dict[str, Any]:
        values = self.options.model_dump()
        return {**values, "s": tuple(values["s"]), "betas": tuple(values["betas"])}

    def report(self, fitted: Any) -> dict[str, float]:
        return {
            "iterations": float(fitted.n_iter_),
            "converged": float(fitted.converged_),
            "retries": float(fitted.retries_),
            "lambda1": float(fitted.lambda1),
        }


@ESTIMATORS.register("dagma")
class Dagma(PathEstimator):
    """DAGMA (Bello et al. 2022, arXiv 2209.08037): least squares along the path. lambda1 is in units of the data squared."""

    def build(self, seed: int) -> DAGMA:
        from sparselab.estimation.estimators.dag.learners import DAGMA

        return DAGMA(**self._values())


@ESTIMATORS.register("colide")
class Colide(PathEstimator):
    """CoLiDE (Saboksayr et al. 2024, arXiv 2310.02895): as DAGMA, with the noise's scale estimated alongside."""

    class Options(PathOptions):
        variance: Literal["ev", "nv"] = Field(description="ev (one noise scale) or nv (one for each node)")
        sigma_floor: float | None = Field(
            gt=0, description="fraction of the smallest column's standard deviation, or null"
        )

    def build(self, seed: int) -> CoLiDE:
        from sparselab.estimation.estimators.dag.learners import CoLiDE

        return CoLiDE(**self._values())


@ESTIMATORS.register("sort_n_regress")
class SortAndRegress(Estimator):
    """SortNRegress (Reisach et al. 2021, arXiv 2102.13647): nodes in order of variance, sparse regressions on those before."""

    class Options(AnyOptions):
        criterion: Literal["bic", "aic"] = Field(description="bic or aic")
        threshold: float = Field(ge=0, description="weights of at most this size are no edges")

    takes = ("graph",)
    options: Options

    def build(self, seed: int) -> SortNRegress:
        from sparselab.estimation.estimators.dag.learners import SortNRegress

        return SortNRegress(self.options.criterion, self.options.threshold)
