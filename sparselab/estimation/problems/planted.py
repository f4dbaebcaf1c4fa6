"""Planted sparse linear models: users who hold a row and a response each (Zhu et al. 2024, arXiv 2310.07367)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.linear.law import Law
    from sparselab.estimation.problems.linear.sample import LinearSample

USERS, MOMENTS = "set of users", "set of moments"  # what is drawn, as estimators say what they take
COUNTABLE = 20  # features up to which the patterns of signs can be counted


class PlantedOptions(AnyOptions):
    """Options of all planted models."""

    n: int = Field(ge=2, le=10**15, description="users, at least 2")
    d: int = Field(ge=1, le=4096, description="features, 1 to 4096")
    k: int = Field(ge=1, description="non-zero entries of the parameter, at least 1")
    noise: float = Field(ge=0, description="standard deviation of the responses' noise, at least 0")
    design: Literal["normal", "signs"] = Field(description="rows: normal, or signs (independent ±1)")
    correlation: float = Field(ge=0, lt=1, description="of neighbouring features of a normal row, in [0, 1)")
    public: int = Field(ge=0, le=10**15, description="further rows without responses that everybody knows, at least 0")


class Planted(Problem):
    """Base: y = <x, theta> + noise with a k-sparse theta of length 1. Draws with the same seed share theta."""

    Options: ClassVar[type[PlantedOptions]] = PlantedOptions
    options: PlantedOptions

    def issues(self) -> list[Issue]:
        o, found = self.options, []
        if o.k > o.d:
            found.append(Issue(f"problem.k={o.k}", f"there are {o.d} features", f"write at most {o.d}"))
        if o.design == "signs" and o.correlation:
            where = f"problem.correlation={o.correlation:g}"
            found.append(Issue(where, "signs are independent", "write 0.0, or design=normal"))
        if 0 < o.public < o.d:
            where = f"problem.public={o.public}"
            found.append(
                Issue(where, f"so few rows have no inverse in {o.d} dimensions", f"write 0, or at least {o.d}")
            )
        return found

    @property
    def law(self) -> Law:
        """The law that the users are drawn from."""
        from sparselab.estimation.problems.linear.law import Law

        o = self.options
        return Law(o.design, o.d, o.k, o.noise, o.correlation)

    def size(self) -> int:
        return self.options.n * self.options.d

    def describe(self) -> str:
        o = self.options
        return f"{self.name}, {o.n:,} users, d={o.d}, k={o.k}, {o.design} rows, noise {o.noise:g}"

    def _rng(self, what: str, *place: object) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng(derive_seed("planted", what, *place))


@PROBLEMS.register("planted_sparse")
class PlantedSparse(Planted):
    """Users one by one, drawn in blocks when they are asked: the first n of more users are the n users of fewer."""

    draws = USERS

    def draw(self, *place: object) -> LinearSample:
        from sparselab.estimation.problems.linear import draw
        from sparselab.estimation.problems.linear.sample import LinearSample
        from sparselab.estimation.problems.linear.users import Drawn

        o, law = self.options, self.law
        theta = draw.parameter(law, self._rng("theta", *place))
        public = draw.rows(law, o.public, self._rng("public", *place)) if o.public else None
        users = Drawn(o.n, o.d, lambda number: draw.block(law, theta, self._rng("rows", *place, number)), public)
        return LinearSample(users, theta)


@PROBLEMS.register("planted_moments")
class PlantedMoments(Planted):
    """Only the users' exact second moments: as many users as one likes, for estimators that ask for no more."""

    draws = MOMENTS

    def issues(self) -> list[Issue]:
        o, found = self.options, super().issues()
        if o.design == "signs" and o.d > COUNTABLE:
            where = f"problem.d={o.d}"
            found.append(Issue(where, "too many patterns of signs to be counted", f"write at most {COUNTABLE}"))
        for name, count in (("n", o.n), ("public", o.public)):
            if o.design == "normal" and 0 < count <= o.d:
                where = f"problem.{name}={count}"
                found.append(
                    Issue(where, f"a Wishart matrix of {o.d + 1} needs more rows", f"write at least {o.d + 1}")
                )
        return found

    def size(self) -> int:
        return self.options.d**2

    def draw(self, *place: object) -> LinearSample:
        from sparselab.estimation.problems.linear import draw
        from sparselab.estimation.problems.linear.sample import LinearSample
        from sparselab.estimation.problems.linear.users import Moments

        o, law = self.options, self.law
        theta = draw.parameter(law, self._rng("theta", *place))
        xx, xy = draw.moments(law, theta, o.n, self._rng("moments", *place))
        public = None
        if o.public:
            public = (o.public, draw.moments(law, theta, o.public, self._rng("public", *place))[0])
        return LinearSample(Moments(o.n, law, xx, xy, public), theta)
