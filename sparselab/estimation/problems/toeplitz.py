"""The simulations of arXiv 2009.10629: blocks of non-zero coefficients among many zeros, columns with a Toeplitz covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    from sparselab.estimation.problems.linear.recovery import SparseSample

BLOCKS = 5
LINEAR = ((0.5, 1.0), (5.0, 2.0), (10.0, 3.0), (20.0, 4.0), (50.0, 5.0))  # mean and standard deviation of each block
LOGISTIC = ((0.5, 1.0), (0.5, 1.0), (-0.5, 1.0), (-0.5, 1.0), (1.0, 1.0))


class Toeplitz(Problem):
    """Base: five blocks of normal coefficients with zeros between; neighbours correlate by tau^distance; standardised columns.

    Coefficients, rows and noise depend on the draw alone: draws that differ in ``snr`` have the same standardised noise.
    """

    class Options(AnyOptions):
        n: int = Field(ge=2, description="rows, at least 2")
        block: int = Field(ge=1, description="non-zero coefficients of each of the five blocks, at least 1")
        gap: int = Field(ge=0, description="zeros between two blocks, at least 0")
        tau: float = Field(ge=0, lt=1, description="correlation of neighbouring columns, in [0, 1)")
        snr: float = Field(gt=0, description="variance of the signal over the noise's, above 0")

    options: Options
    means: tuple[tuple[float, float], ...] = LINEAR

    def size(self) -> int:
        return self.options.n * self._width()

    def describe(self) -> str:
        o = self.options
        return f"{self.name}, {o.n:,} rows, {self._width():,} columns, tau {o.tau:g}, SNR {o.snr:g}"

    def _width(self) -> int:
        return BLOCKS * self.options.block + (BLOCKS - 1) * self.options.gap

    def _signal(self, *place: object) -> tuple[Any, Any, Any, Any]:
        """(X, coefficients, signal with noise (n,), generator)."""
        import numpy as np
        from scipy.linalg import matmul_toeplitz
        from scipy.signal import lfilter

        o = self.options
        rng = np.random.default_rng(derive_seed("toeplitz", self.name, *place))
        coef = np.zeros(self._width())
        for number, (mean, sd) in enumerate(self.means):
            start = number * (o.block + o.gap)
            coef[start : start + o.block] = rng.normal(mean, sd, o.block)
        X = rng.standard_normal((o.n, len(coef)))
        X[:, 1:] *= np.sqrt(1 - o.tau**2)
        X = lfilter([1.0], [1.0, -o.tau], X, axis=1)  # column j = tau · column j - 1 + its own share
        X = (X - X.mean(0)) / X.std(0)
        variance = coef @ matmul_toeplitz(o.tau ** np.arange(len(coef)), coef)
        noise = rng.standard_normal(o.n) * np.sqrt(variance / o.snr)
        return X, coef, X @ coef + noise, rng

    def _facts(self) -> dict[str, float]:
        o = self.options
        return {"rows": float(o.n), "columns": float(self._width()), "tau": o.tau, "snr": o.snr}


@PROBLEMS.register("toeplitz_regression")
class ToeplitzRegression(Toeplitz):
    """y is the signal plus noise."""

    draws = "regression"

    def draw(self, *place: object) -> SparseSample:
        from sparselab.estimation.problems.linear.recovery import SparseSample

        X, coef, y, _ = self._signal(*place)
        return SparseSample(X, y, coef, self._facts())


@PROBLEMS.register("toeplitz_classification")
class ToeplitzClassification(Toeplitz):
    """y is 1 with the logistic function of signal and noise, and ``intercept``."""

    class Options(Toeplitz.Options):
        intercept: float = Field(description="added to the signal")

    draws = "classification"
    options: Options
    means = LOGISTIC

    def draw(self, *place: object) -> SparseSample:
        import numpy as np

        from sparselab.estimation.problems.linear.recovery import SparseSample

        X, coef, signal, rng = self._signal(*place)
        one = 0.5 * np.tanh((signal + self.options.intercept) / 2) + 0.5
        return SparseSample(X, (rng.random(len(one)) < one).astype(float), coef, self._facts())
