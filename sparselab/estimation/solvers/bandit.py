"""Solvers of misspecified linear bandits (Dong & Yang 2023, arXiv 2303.16998, and what it compares with)."""

from __future__ import annotations

from math import ceil, comb, log
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.solvers.linear.net import net_size, spacing
from sparselab.estimation.solvers.solver import SOLVERS, Solver

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.bandits.bandit import Answer, Bandit
    from sparselab.estimation.solvers.linear.design import Design


@SOLVERS.register("elimination")
class Elimination(Solver):
    """Optimistic elimination over a net of s-sparse parameters: gap <= 4 eps with at most (d / eps)^s queries.

    A reconstruction that meets the rate of the paper's abstract (its own listing could not be read).
    """

    class Options(AnyOptions):
        eta: float | None = Field(gt=0, description="spacing of the grid, or null: 2 eps / sqrt(s)")
        tol: float | None = Field(gt=0, description="what a prediction may be off, or null: 2 eps (3 eps with noise)")
        delta_p: float = Field(gt=0, lt=1, description="probability of a wrong removal with noise, in (0, 1)")
        max_candidates: int = Field(ge=1, description="the largest net that is tried")

    takes = ("bandit",)
    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        o = problem.options
        size = net_size(problem.d, o.s, o.eps, self._eta(o.s, o.eps))
        if size <= self.options.max_candidates:
            return []
        where = f"problem.eps={o.eps:g} problem.s={o.s}"
        return [
            Issue(
                where, f"the net has {size:.3g} candidates", "write a larger eps, a smaller s or d, or max_candidates"
            )
        ]

    def _eta(self, s: int, eps: float) -> float:
        return self.options.eta or spacing(s, eps)

    def solve(self, environment: Bandit, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.solvers.linear.elimination import Net, eliminate

        eps, s, noise = environment.eps, environment.s, environment.noise
        candidates = Net(environment.features, s, eps, self._eta(s, eps))
        tol = self.options.tol or (3 * eps if noise else 2 * eps)
        times = ceil(2 * noise**2 * log(2 * len(candidates) / self.options.delta_p) / eps**2) if noise else 1
        return eliminate(environment, candidates, tol, times)[0]


class DesignOptions(AnyOptions):
    """Queries by an optimal design, an estimate of theta, and the action that it likes best."""

    factor: float = Field(ge=1, description="how near to optimal the design is: max |a|^2 <= factor * rank; at least 1")
    budget: int | None = Field(ge=1, description="most queries of the design, or null: all of its actions")
    times: int = Field(ge=1, description="queries of each action that are averaged (for noise), at least 1")
    persist: bool = Field(description="true: go on with the next best action until all are queried")


class DesignSolver(Solver):
    """Base of the estimators. With ``persist`` they refit after each query, and the best seen is the answer."""

    Options: ClassVar[type[DesignOptions]] = DesignOptions
    takes = ("bandit",)
    options: Any

    def estimate(self, features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, bandit: Bandit) -> np.ndarray:
        """Estimate theta from some rewards.

        Args:
            features: (n, d), a row for each action that was tried
            rewards: (n,)
            weights: (n,), at least 0, summing to 1
            bandit: what is known of the instance

        Returns:
            (d,) float64.
        """
        raise NotImplementedError

    def promise(self, bandit: Bandit, design: Design) -> float | None:
        """The largest gap that theory allows, for the whole design."""
        return None

    def solve(self, environment: Bandit, rng: np.random.Generator) -> Answer:
        import numpy as np

        from sparselab.estimation.problems.bandits.bandit import Answer
        from sparselab.estimation.solvers.linear.design import optimal_design

        features, o = environment.features, self.options
        design = optimal_design(features, o.factor)
        asked, weights = design.actions, design.weights
        whole = o.budget is None or o.budget >= len(asked)
        if o.budget is not None:
            more = rng.permutation(np.setdiff1d(np.arange(len(features)), asked))
            asked = np.concatenate([asked, more])[: o.budget]
            weights = np.full(len(asked), 1 / len(asked))
        rewards = np.array([environment.query(int(action), o.times) for action in asked])
        theta = self.estimate(features[asked], rewards, weights, environment)
        if not o.persist:
            promise = self.promise(environment, design) if o.budget is None else None
            return Answer(_first_best(features @ theta), promise, float(len(asked) * o.times) if whole else None)
        while len(asked) < len(features):
            likes = features @ theta
            likes[asked] = -np.inf
            asked = np.append(asked, _first_best(likes))
            rewards = np.append(rewards, environment.query(int(asked[-1]), o.times))
            theta = self.estimate(features[asked], rewards, np.full(len(asked), 1 / len(asked)), environment)
        return Answer(int(asked[np.argmax(rewards)]))


def _first_best(likes: np.ndarray) -> int:
    """The first of the largest, where what differs by rounding is equal."""
    return int(likes.round(12).argmax())


@SOLVERS.register("gopt_ls")
class LeastSquaresDesign(DesignSolver):
    """Least squares on an optimal design: gap <= 2 (1 + sqrt(max |a|^2)) eps, about eps sqrt(d) (Lattimore et al. 2020)."""

    def estimate(self, features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, bandit: Bandit) -> np.ndarray:
        from sparselab.estimation.solvers.linear.fit import least_squares

        return least_squares(features, rewards, weights)

    def promise(self, bandit: Bandit, design: Design) -> float | None:
        return None if bandit.noise else 2 * (1 + design.spread**0.5) * bandit.eps


@SOLVERS.register("lasso")
class LassoDesign(DesignSolver):
    """Lasso on the same queries. The penalty is the least that eps alone cannot overcome, unless it is given."""

    class Options(DesignOptions):
        penalty: float | None = Field(
            gt=0, description="weight of |theta|_1, or null: what rewards of eps cannot overcome"
        )

    def estimate(self, features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, bandit: Bandit) -> np.ndarray:
        from sparselab.estimation.solvers.linear.fit import lasso, lasso_penalty

        penalty = self.options.penalty or lasso_penalty(features, weights, bandit.eps)
        return lasso(features, rewards, weights, penalty)


@SOLVERS.register("best_subset")
class BestSubset(DesignSolver):
    """Least squares on the s coordinates that fit the same queries best."""

    class Options(DesignOptions):
        max_supports: int = Field(ge=1, description="the most sets of coordinates that are tried")

    def issues(self, problem: Any) -> list[Issue]:
        count = comb(problem.d, problem.options.s)
        if count <= self.options.max_supports:
            return []
        fix = "write a smaller s or d, or solver.max_supports"
        return [Issue(f"problem.s={problem.options.s}", f"there are {count:.3g} sets of coordinates", fix)]

    def estimate(self, features: np.ndarray, rewards: np.ndarray, weights: np.ndarray, bandit: Bandit) -> np.ndarray:
        from sparselab.estimation.solvers.linear.fit import best_subset

        return best_subset(features, rewards, weights, bandit.s)


@SOLVERS.register("uniform")
class Uniform(Solver):
    """Actions in random order; the best seen is the answer."""

    class Options(AnyOptions):
        budget: int | None = Field(ge=1, description="distinct actions that are queried, or null: all")
        times: int = Field(ge=1, description="queries of each action that are averaged (for noise), at least 1")

    takes = ("bandit",)
    options: Options

    def solve(self, environment: Bandit, rng: np.random.Generator) -> Answer:
        import numpy as np

        from sparselab.estimation.problems.bandits.bandit import Answer

        asked = rng.permutation(len(environment.features))[: self.options.budget]
        rewards = [environment.query(int(action), self.options.times) for action in asked]
        return Answer(int(asked[np.argmax(rewards)]))


@SOLVERS.register("phased")
class Phased(Solver):
    """Phased elimination (Lattimore et al. 2020): design on the actions left, least squares, drop those 2^(1 - phase) below."""

    class Options(AnyOptions):
        factor: float = Field(ge=1, description="max |a|^2 <= factor * rank of each design; at least 1")
        times: int = Field(ge=1, description="queries of each action that are averaged (for noise), at least 1")
        phases: int = Field(ge=1, description="the most phases, at least 1")

    takes = ("bandit",)
    options: Options

    def solve(self, environment: Bandit, rng: np.random.Generator) -> Answer:
        import numpy as np

        from sparselab.estimation.problems.bandits.bandit import Answer
        from sparselab.estimation.solvers.linear.design import optimal_design
        from sparselab.estimation.solvers.linear.fit import least_squares

        left = np.arange(len(environment.features))
        best = int(left[0])
        for phase in range(1, self.options.phases + 1):
            features = environment.features[left]
            if not features.any():
                break
            design = optimal_design(features, self.options.factor)
            rewards = np.array([environment.query(int(left[a]), self.options.times) for a in design.actions])
            likes = features @ least_squares(features[design.actions], rewards, design.weights)
            best = int(left[_first_best(likes)])
            left = left[likes >= likes.max() - 2 * 2.0**-phase]
            if len(left) == 1 or 2.0**-phase < environment.eps:
                break
        return Answer(best)
