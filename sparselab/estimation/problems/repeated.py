"""Repeated measures: rows in groups with a random intercept each, some responses far off."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.linear.recovery import SparseSample

GROUPED = "set of groups"


class GroupedRows(NamedTuple):
    """rows: (n, p). groups: (n,) the number of each row's group."""

    rows: np.ndarray
    groups: np.ndarray


@PROBLEMS.register("repeated_measures")
class RepeatedMeasures(Problem):
    """y = <x, coef> + the group's intercept + noise; a share of the responses has a large normal error besides.

    Draws that differ in ``contaminated`` have the same rows, coefficients and noise, and more of the responses are off.
    """

    class Options(AnyOptions):
        groups: int = Field(ge=2, description="groups, at least 2")
        least: int = Field(ge=1, description="fewest rows of a group, at least 1")
        most: int = Field(ge=1, description="most rows of a group")
        p: int = Field(ge=1, description="columns, at least 1")
        k: int = Field(ge=1, description="non-zero coefficients, ±1, at least 1")
        random: float = Field(ge=0, description="standard deviation of the groups' intercepts, at least 0")
        noise: float = Field(gt=0, description="standard deviation of the noise, above 0")
        contaminated: float = Field(ge=0, lt=0.5, description="share of the responses that is far off, in [0, 0.5)")
        far: float = Field(gt=0, description="standard deviation of their error, above 0")

    draws = GROUPED
    options: Options

    def issues(self) -> list[Issue]:
        o, found = self.options, []
        if o.k > o.p:
            found.append(Issue(f"problem.k={o.k}", f"there are {o.p} columns", f"write at most {o.p}"))
        if o.most < o.least:
            found.append(Issue(f"problem.most={o.most}", f"fewer than problem.least={o.least}", f"write {o.least}"))
        return found

    def size(self) -> int:
        return self.options.groups * self.options.most * self.options.p

    def describe(self) -> str:
        o = self.options
        return f"{self.name}, {o.groups} groups of {o.least} to {o.most}, p={o.p}, {100 * o.contaminated:g} % far off"

    def draw(self, *place: object) -> SparseSample:
        import numpy as np

        from sparselab.estimation.problems.linear.recovery import SparseSample

        o = self.options
        rng = np.random.default_rng(derive_seed("repeated_measures", *place))
        groups = np.repeat(np.arange(o.groups), rng.integers(o.least, o.most + 1, o.groups))
        n = len(groups)
        X = rng.standard_normal((n, o.p))
        coef = np.zeros(o.p)
        coef[rng.permutation(o.p)[: o.k]] = rng.choice([-1.0, 1.0], o.k)
        y = X @ coef + o.random * rng.standard_normal(o.groups)[groups] + o.noise * rng.standard_normal(n)
        off = o.far * rng.standard_normal(n) * (rng.permutation(n) < round(o.contaminated * n))
        return SparseSample(GroupedRows(X, groups), y + off, coef, {"contaminated": o.contaminated, "rows": float(n)})
