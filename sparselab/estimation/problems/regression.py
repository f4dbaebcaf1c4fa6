"""Sparse regression on a fixed design, however ill-conditioned, with the support at random or where it hurts.

The setting of Chandrasekaran, Meka & Stavropoulos (2025, arXiv 2511.06211). The designs are not the paper's, which has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.designs.sample import DesignSample

# (rows, columns) of the designs that are tables; of the others both are drawn.
TABLES = {
    "digits": (1797, 50),
    "diabetes_poly": (442, 65),
    "breast_cancer_poly": (569, 495),
    "wine_bins": (178, 65),
}


@PROBLEMS.register("planted_regression")
class PlantedRegression(Problem):
    """y = X w + noise with a k-sparse w that is scaled so that |X w|^2 = N. Draws of a seed share rows, places and noise."""

    class Options(AnyOptions):
        design: Literal[
            "iid", "walk", "factor", "tree", "digits", "diabetes_poly", "breast_cancer_poly", "wine_bins"
        ] = Field(description="iid, walk, factor, tree; tables: digits, diabetes_poly, breast_cancer_poly, wine_bins")
        n: int = Field(ge=2, le=10**6, description="samples, at least 2")
        d: int | None = Field(ge=1, le=16384, description="columns, 1 to 16384, or null: as many as the table has")
        k: int = Field(ge=1, description="non-zeros, at least 1")
        support: Literal["random", "adjacent", "closest"] = Field(description="random, adjacent or closest")
        values: Literal["worst", "gauss"] = Field(description="worst or gauss")
        noise: float = Field(ge=0, description="standard deviation of the noise, at least 0")
        decay: float = Field(ge=1, le=256, description="of the tree's variance from level to level, 1 to 256")
        common: float = Field(ge=0, description="weight of the source that the factor's columns share, at least 0")
        given: Literal["all", "support"] = Field(description="all, or support (an oracle)")

    draws = "regression"
    options: Options

    @property
    def columns(self) -> int:
        """Columns that an estimator is given."""
        return self.options.k if self.options.given == "support" else self._all

    @property
    def _all(self) -> int:
        o = self.options
        return TABLES[o.design][1] if o.design in TABLES else o.d or 0

    def issues(self) -> list[Issue]:
        o = self.options
        if o.design in TABLES:
            rows, columns = TABLES[o.design]
            if o.d is not None:
                where = f"problem.d={o.d}"
                return [Issue(where, f"{o.design} has {columns} columns of its own", "write problem.d=null")]
            if o.n > rows:
                return [Issue(f"problem.n={o.n}", f"{o.design} has {rows} rows", f"write at most {rows}")]
        elif o.d is None:
            return [Issue("problem.d=null", f"{o.design} has as many columns as asked for", "write problem.d=128")]
        if o.k > self._all:
            return [Issue(f"problem.k={o.k}", f"there are {self._all} columns", f"write at most {self._all}")]
        return []

    def size(self) -> int:
        return self.options.n * self.columns

    def describe(self) -> str:
        o = self.options
        shape = f"{o.n:,} x {self._all:,}"
        given = ", given to the estimator" if o.given == "support" else ""
        return f"{o.design} {shape}, {o.values} values on a support of {o.k}, {o.support}{given}, noise {o.noise:g}"

    def _rng(self, what: str, *place: object) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng(derive_seed("planted_regression", what, *place))

    def draw(self, *place: object) -> DesignSample:
        import numpy as np

        from sparselab.estimation.problems.designs import plant
        from sparselab.estimation.problems.designs.sample import DesignSample

        o = self.options
        X, condition = self._design(*place)
        places = plant.SUPPORTS[o.support](X, o.k, self._rng("support", *place))
        w = plant.parameter(X, places, o.values, self._rng("values", *place))
        noise = o.noise * self._rng("noise", *place).standard_normal(o.n)
        given = places if o.given == "support" else np.arange(X.shape[1])
        return DesignSample(X[:, given], X @ w + noise, X, w, noise, given, condition)

    def _design(self, *place: object) -> tuple[np.ndarray, float | None]:
        """X, and the condition number of a row's covariance where it is known. The first rows of many are those of fewer."""
        o, rng = self.options, self._rng("rows", *place)
        if o.design in TABLES:
            from sparselab.estimation.problems.designs.real import real

            X = real(o.design)
            return X[rng.permutation(len(X))[: o.n]], None
        from sparselab.estimation.problems.designs.mixing import condition, mixing

        M = mixing(o.design, self._all, o.decay, o.common)
        return rng.standard_normal((o.n, len(M))) @ M, condition(o.design, self._all, o.decay, o.common)
