"""Screening of columns. The arithmetic is in :mod:`sparselab.estimation.estimators.information`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator
from sparselab.estimation.problems.factor_columns import RANKED

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


class ScreeningOptions(AnyOptions):
    """Options of a screener."""

    estimator: Literal["fftkde", "binned", "sklearn", "pearson"] = Field(description="fftkde, binned, sklearn, pearson")
    keep: int = Field(ge=1, description="columns that are kept, at least 1")
    outcome: Literal["auto", "continuous", "discrete"] = Field(
        description="continuous, discrete, or auto: discrete where y has two values"
    )
    grid: int = Field(ge=16, le=4096, description="points of the density's grid along an axis, 16 to 4096")
    bw: float | Literal["silverman", "scott", "isj"] = Field(
        description="bandwidth in standard deviations, above 0, or silverman, scott, isj"
    )
    clump: float | None = Field(gt=0, description="largest score of a column with a better one, above 0, or null")
    indexing: Literal["correct", "repo"] = Field(description="correct, or repo (the published code's fault)")


class Screening(Estimator):
    """Base of `mi_screen` and `screened_ridge`."""

    Options: ClassVar[type[ScreeningOptions]] = ScreeningOptions
    options: Any

    def issues(self, problem: Any) -> list[Issue]:
        o = self.options
        if not isinstance(o.bw, str) and o.bw <= 0:
            return [Issue(f"estimator.bw={o.bw:g}", "a bandwidth is above 0", "write 1.0 or silverman")]
        return []

    def work(self, problem: Any) -> float:
        return float(problem.size()) * (self.options.grid if self.options.estimator == "fftkde" else 10)

    def screener(self, seed: int) -> BaseEstimator:
        """The feature selector of the options."""
        from sparselab.estimation.estimators.information.selector import MIScreen

        values = {name: getattr(self.options, name) for name in ScreeningOptions.model_fields}
        return MIScreen(**values, random_state=seed % 2**32)


@ESTIMATORS.register("mi_screen")
class Screen(Screening):
    """Columns ranked by mutual information or correlation (fastHDMI, arXiv 2410.10082)."""

    takes = (RANKED,)

    def build(self, seed: int) -> BaseEstimator:
        return self.screener(seed)


@ESTIMATORS.register("screened_ridge")
class ScreenedRidge(Screening):
    """Ridge regression, its penalty by leave-one-out errors, on the columns that a screener keeps."""

    takes = ("regression",)

    def build(self, seed: int) -> BaseEstimator:
        from sparselab.estimation.estimators.information.screened import ScreenedRidgeRegressor

        return ScreenedRidgeRegressor(self.screener(seed))

    def report(self, fitted: Any) -> dict[str, float]:
        return {"kept": float(len(fitted.screener_.kept_))}
