"""Many correlated columns, of which some make up an outcome: which are they? After the simulations of fastHDMI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    from sparselab.estimation.problems.tables.ranking import RankingSample

RANKED = "set of columns"
CORRELATION = 0.6  # of the coefficients of neighbours in the true set
SIZE = 6.0  # their mean


@PROBLEMS.register("factor_columns")
class FactorColumns(Problem):
    """Columns with common factors; a random set of them has coefficients around 6, and an outcome is made of their sum.

    linear: the sum. squared: its z-score, squared and z-scored again. Continuous outcomes get noise; binary ones are drawn from
    the logistic function of the z-score, ``translated`` moved to where that function is bent most.
    """

    class Options(AnyOptions):
        n: int = Field(ge=10, description="rows, at least 10")
        p: int = Field(ge=2, le=200_000, description="columns, 2 to 200000")
        relevant: int = Field(ge=1, description="columns that make up the outcome, at least 1")
        factors: int = Field(ge=0, description="common factors of the columns, at least 0")
        shared: float = Field(ge=0, lt=1, description="share of a column's variance that is the factors', in [0, 1)")
        response: Literal["linear", "squared"] = Field(description="linear or squared")
        outcome: Literal["continuous", "binary", "translated"] = Field(description="continuous, binary or translated")
        snr: float = Field(gt=0, description="variance of the signal over the noise's (continuous), above 0")

    draws = RANKED
    options: Options

    def issues(self) -> list[Issue]:
        o, found = self.options, []
        if o.relevant >= o.p:
            found.append(
                Issue(f"problem.relevant={o.relevant}", f"there are {o.p} columns", f"write at most {o.p - 1}")
            )
        if o.shared and not o.factors:
            found.append(
                Issue(f"problem.shared={o.shared:g}", "there are no factors", "write 0.0, or problem.factors=5")
            )
        return found

    def size(self) -> int:
        return self.options.n * self.options.p

    def describe(self) -> str:
        o = self.options
        return f"{self.name}, {o.n:,} rows, {o.p:,} columns, {o.relevant} relevant, {o.outcome} {o.response}"

    def draw(self, *place: object) -> RankingSample:
        import numpy as np
        from scipy.signal import lfilter

        from sparselab.estimation.problems.tables.ranking import RankingSample

        o = self.options
        rng = np.random.default_rng(derive_seed("factor_columns", *place))
        X = np.sqrt(1 - o.shared) * rng.standard_normal((o.n, o.p))
        if o.factors:
            loadings = rng.standard_normal((o.factors, o.p)) / np.sqrt(o.factors)
            X += np.sqrt(o.shared) * rng.standard_normal((o.n, o.factors)) @ loadings
        truth = np.zeros(o.p, bool)
        true = rng.permutation(o.p)[: o.relevant]
        truth[true] = True
        coef = rng.standard_normal(o.relevant)
        coef[1:] *= np.sqrt(1 - CORRELATION**2)
        coef = SIZE + lfilter([1.0], [1.0, -CORRELATION], coef)
        signal = _scores(_scores(X[:, true]) @ coef)
        if o.response == "squared":
            signal = _scores(signal**2)
        if o.outcome == "continuous":
            return RankingSample(X, signal + rng.standard_normal(o.n) / np.sqrt(o.snr), truth)
        moved = np.arctanh(np.sqrt(1 / 3)) if o.outcome == "translated" else 0.0
        one = 0.5 * np.tanh((signal + moved) / 2) + 0.5
        return RankingSample(X, (rng.random(o.n) < one).astype(float), truth)


def _scores(values: Any) -> Any:
    """Z-scores of columns, standard deviation of n."""
    return (values - values.mean(0)) / values.std(0)
