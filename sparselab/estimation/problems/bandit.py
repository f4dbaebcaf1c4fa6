"""Misspecified linear bandits with a sparse parameter (Dong & Yang 2023, arXiv 2303.16998)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.options import off
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.bandits.bandit import Bandit


class BanditOptions(AnyOptions):
    """Options of every bandit."""

    s: int = Field(ge=1, description="non-zero entries of theta, at least 1")
    eps: float = Field(gt=0, lt=1, description="the misspecification, in (0, 1)")
    noise: float = Field(ge=0, description="standard deviation of a reward, at least 0")


class BanditProblem(Problem):
    """Base: subclasses make the instance."""

    Options: ClassVar[type[BanditOptions]] = BanditOptions
    draws = "bandit"
    options: Any

    @property
    def d(self) -> int:
        """Dimensions of the features."""
        return int(self.options.d)

    def actions(self) -> int:
        """How many there are. No numpy."""
        return int(self.options.n_actions)

    def issues(self) -> list[Issue]:
        if self.options.s > self.d:
            return [Issue(f"problem.s={self.options.s}", f"there are {self.d} dimensions", f"write at most {self.d}")]
        return []

    def size(self) -> int:
        return self.actions()

    def describe(self) -> str:
        o = self.options
        return f"{self.name}, {self.actions():,} actions, d={self.d}, s={o.s}, eps={o.eps:g}, noise {o.noise:g}"

    def instance(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features, rewards, theta)."""
        raise NotImplementedError

    def draw(self, *place: object) -> Bandit:
        import numpy as np

        from sparselab.estimation.problems.bandits.bandit import Bandit

        features, rewards, theta = self.instance(np.random.default_rng(derive_seed(self.name, *place)))
        o = self.options
        return Bandit(
            features, rewards, theta, o.eps, o.s, o.noise, np.random.default_rng(derive_seed("noise", *place))
        )


@PROBLEMS.register("spread")
class Spread(BanditProblem):
    """A misspecification of eps on each basis vector, spread so that least squares adds it up to eps * sqrt(d)."""

    class Options(BanditOptions):
        d: int = Field(ge=2, description="dimensions, at least 2")
        n_actions: int = Field(ge=1, description="sign vectors beside the d basis vectors, at least 1")
        signs: Literal["random", "positive"] = off("random", description='of theta\'s entries: "random" or "positive"')

    options: Options

    def actions(self) -> int:
        return self.options.n_actions + self.options.d

    def instance(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sparselab.estimation.problems.bandits import instances

        o = self.options
        return instances.spread(o.d, o.s, o.n_actions, o.eps, rng, o.signs == "positive")


@PROBLEMS.register("needle")
class Needle(BanditProblem):
    """The hard instance: exp(s) nearly orthogonal actions, of which only one has a reward."""

    class Options(BanditOptions):
        d: int = Field(ge=2, description="dimensions, at least 2")
        n_actions: int | None = Field(ge=2, description="at least 2, or null: exp(coherence^2 s / 4)")
        coherence: float = Field(gt=0, lt=1, description="largest inner product of two actions, in (0, 1)")

    options: Options

    def issues(self) -> list[Issue]:
        found, o = super().issues(), self.options
        if o.eps > o.coherence:
            where = f"problem.eps={o.eps:g}"
            found.append(Issue(where, "|theta| = eps / coherence would be above 1", f"write at most {o.coherence:g}"))
        return found

    def actions(self) -> int:
        from math import exp

        o = self.options
        return o.n_actions or max(2, int(exp(o.coherence**2 * o.s / 4)))

    def instance(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sparselab.estimation.problems.bandits import instances

        o = self.options
        return instances.needle(o.d, o.s, self.actions(), o.coherence, o.eps, rng)


@PROBLEMS.register("random_bandit")
class RandomBandit(BanditProblem):
    """Random directions with random errors: errors cancel, and every method does well."""

    class Options(BanditOptions):
        d: int = Field(ge=2, description="dimensions, at least 2")
        n_actions: int = Field(ge=2, description="at least 2")

    options: Options

    def instance(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sparselab.estimation.problems.bandits import instances

        o = self.options
        return instances.random(o.d, o.s, o.n_actions, o.eps, rng)


class TableBandit(BanditProblem):
    """Rows of a table that scikit-learn brings, as actions."""

    class Options(BanditOptions):
        n_actions: int = Field(ge=2, description="rows drawn without replacement, at least 2")

    columns: ClassVar[int]
    rows: ClassVar[int]
    options: Options

    @property
    def d(self) -> int:
        return self.columns

    def issues(self) -> list[Issue]:
        found = super().issues()
        if self.options.n_actions > self.rows:
            where = f"problem.n_actions={self.options.n_actions}"
            found.append(Issue(where, f"{self.name} has {self.rows} rows", f"write at most {self.rows}"))
        return found

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) features and the target."""
        raise NotImplementedError

    def instance(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sparselab.estimation.problems.bandits import instances

        o = self.options
        return instances.rows(*self.table(), o.s, o.n_actions, o.eps, rng)


@PROBLEMS.register("diabetes_bandit")
class DiabetesBandit(TableBandit):
    """442 patients with 10 centred measurements; the reward is the centred progression of the disease."""

    columns, rows = 10, 442

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_diabetes

        data, target = load_diabetes(return_X_y=True)
        return data, target - target.mean()


@PROBLEMS.register("digits_bandit")
class DigitsBandit(TableBandit):
    """1,797 images of 8x8 pixels; the reward is the digit, from -1 (zero) to 1 (nine)."""

    columns, rows = 64, 1797

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        data, target = load_digits(return_X_y=True)
        return data / 16, target / 4.5 - 1
