"""Linear regressors whose penalty is learned: a penalty for every feature, or one for all by cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.estimators.estimator import ESTIMATORS, Estimator
from sparselab.spec.faults import Fault
from sparselab.spec.options import Options as AnyOptions

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@ESTIMATORS.register("bilevel_ridge")
class BilevelRidge(Estimator):
    """A ridge penalty for every feature, learned by the penalty method (Kwon et al. 2024, arXiv 2309.01753)."""

    class Options(AnyOptions):
        variant: Literal["double", "single"] = Field(description="double (two loops) or single (one)")
        sigma: float = Field(gt=0, description="weight of the upper level in the lower one, above 0")
        lr_x: float = Field(gt=0, description="step of the log-penalties, times sigma; above 0")
        inner_steps: int = Field(ge=1, description="lower steps for each of the penalties' (double), at least 1")
        max_iter: int = Field(ge=1, description="most steps of the penalties, at least 1")
        tol: float = Field(ge=0, description="change of a log-penalty in a step that ends the fit, at least 0")
        l1: float = Field(ge=0, description="weight of sum |w_j| in the upper level, at least 0")
        start: float = Field(description="first log-penalty")
        low: float = Field(description="least log-penalty")
        high: float = Field(description="largest log-penalty")
        val_fraction: float = Field(gt=0, lt=1, description="share of the samples that is held out, in (0, 1)")

    takes = ("regression",)
    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        o = self.options
        if o.low <= o.start <= o.high:
            return []
        fix = "write low <= start <= high"
        return [Fault(f"estimator.start={o.start:g}", f"is not between {o.low:g} and {o.high:g}", fix)]

    def work(self, problem: Any) -> float:
        return float(problem.size()) ** 2 * self.options.max_iter * self.options.inner_steps

    def build(self, seed: int) -> BaseEstimator:
        from sparselab.estimators.penalised.ridge import BilevelPenaltyRegressor

        return BilevelPenaltyRegressor(**self.options.model_dump(), random_state=seed % 2**32)

    def report(self, fitted: Any) -> dict[str, float]:
        return {
            "iterations": float(fitted.n_iter_),
            "converged": float(fitted.converged_),
            "oracle_calls": float(fitted.n_oracle_calls_),
        }


class CrossValidated(Estimator):
    """One penalty for all features, by cross-validation: scikit-learn's own."""

    class Options(AnyOptions):
        alphas: int = Field(ge=2, description="penalties that are tried, at least 2")
        folds: int = Field(ge=2, description="folds of cross-validation, at least 2")

    takes = ("regression",)
    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        train = getattr(problem.options, "train", None)
        if train is None or self.options.folds <= train:
            return []
        return [Fault(f"estimator.folds={self.options.folds}", f"there are {train} samples", f"write at most {train}")]


@ESTIMATORS.register("ridge_cv")
class RidgeCV(CrossValidated):
    """Ridge regression."""

    def build(self, seed: int) -> BaseEstimator:
        import numpy as np
        from sklearn.linear_model import RidgeCV

        return RidgeCV(np.geomspace(1e-2, 1e5, self.options.alphas), cv=self.options.folds)

    def report(self, fitted: Any) -> dict[str, float]:
        return {"alpha": float(fitted.alpha_)}


@ESTIMATORS.register("lasso_cv")
class LassoCV(CrossValidated):
    """The Lasso."""

    def build(self, seed: int) -> BaseEstimator:
        from sklearn.linear_model import LassoCV

        return LassoCV(alphas=self.options.alphas, cv=self.options.folds, max_iter=10_000)

    def report(self, fitted: Any) -> dict[str, float]:
        return {"alpha": float(fitted.alpha_)}
