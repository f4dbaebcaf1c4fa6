"""A small real table with columns of noise beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.problems.problem import PROBLEMS, Problem
from sparselab.spec.address import address
from sparselab.spec.faults import Fault
from sparselab.spec.options import Options as AnyOptions

if TYPE_CHECKING:
    from sparselab.problems.tables.sample import TableSample

SHAPES = {"diabetes": (442, 10), "breast_cancer": (569, 30), "wine": (178, 13)}  # of what scikit-learn brings
TABLES = Literal["diabetes", "breast_cancer", "wine"]


@PROBLEMS.register("noisy_table")
class NoisyTable(Problem):
    """A table of scikit-learn, standardised, with columns of Gaussian noise beside it; rows are split at random.

    Classes (breast_cancer, wine) are predicted as numbers, by least squares.
    """

    class Options(AnyOptions):
        table: TABLES = Field(description="diabetes, breast_cancer or wine")
        noise_columns: int = Field(ge=0, le=5000, description="columns of noise, 0 to 5000")
        train: int = Field(ge=10, description="rows to fit to, at least 10; the others test")

    draws = "regression"
    options: Options

    def faults(self) -> list[Fault]:
        rows, most = SHAPES[self.options.table][0], SHAPES[self.options.table][0] - 10
        if self.options.train <= most:
            return []
        where = f"problem.train={self.options.train}"
        return [Fault(where, f"{self.options.table} has {rows} rows, and 10 have to test", f"write at most {most}")]

    def size(self) -> int:
        return SHAPES[self.options.table][1] + self.options.noise_columns

    def describe(self) -> str:
        o = self.options
        rows, columns = SHAPES[o.table]
        return f"{o.table}, {columns} columns and {o.noise_columns} of noise, {o.train} of {rows} rows to fit to"

    def draw(self, *place: object) -> TableSample:
        import numpy as np
        from sklearn import datasets

        from sparselab.problems.tables.sample import TableSample

        o = self.options
        rng = np.random.default_rng(address("noisy_table", *place))
        data, target = getattr(datasets, f"load_{o.table}")(return_X_y=True)
        order = rng.permutation(len(target))
        noise = rng.standard_normal((len(target), o.noise_columns))
        data = np.column_stack([(data - data.mean(0)) / data.std(0), noise])[order]
        target = ((target - target.mean()) / target.std())[order]
        fit, rest = slice(o.train), slice(o.train, None)
        return TableSample(data[fit], target[fit], data[rest], target[rest], o.noise_columns)
