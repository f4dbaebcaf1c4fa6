"""Offline optimisers: `gradient_ascent`, `reinforce`, `cma_es`, `coms`, each on a surrogate whose sharpness may be held down.

The arithmetic is in :mod:`sparselab.estimation.estimators.surrogates`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator
from sparselab.estimation.problems.offline_designs import SCORED

if TYPE_CHECKING:
    from sparselab.estimation.estimators.surrogates.optimizer import OfflineOptimizer


class SurrogateOptions(AnyOptions):
    """Options of every surrogate, and of its sharpness."""

    designs: int = Field(ge=1, description="designs to find, at least 1")
    members: int = Field(ge=1, description="networks of the ensemble, at least 1")
    width: int = Field(ge=1, description="units of a hidden layer, at least 1")
    depth: int = Field(ge=1, description="hidden layers, at least 1")
    slope: float = Field(ge=0, lt=1, description="of the rectifiers below zero, in [0, 1)")
    epochs: int = Field(ge=1, description="passes over the data, at least 1")
    batch: int = Field(ge=1, description="designs a step, at least 1")
    rate: float = Field(gt=0, description="step size of Adam, above 0")
    validation: int = Field(ge=0, description="designs held out of the fit, at least 0")
    bootstrap: bool = Field(description="true: every network is fitted to a resample of the designs")
    sharpness: Literal["none", "dual", "fixed"] = Field(description="none, dual (IGNITE) or fixed (IGNITE-2)")
    lam: float = Field(ge=0, description="weight of the sharpness, at least 0; with dual its first value")
    eta: float = Field(ge=0, description="step of the dual ascent, at least 0")
    eps: float = Field(ge=0, description="budget of rho |grad G|, at least 0")
    rho: float = Field(gt=0, description="radius of the sharpness, above 0")
    r: float = Field(gt=0, description="length of the finite difference, above 0")
    clip: bool = Field(description="true: lam stops at 0; the released code lets it go below")


class Offline(Estimator):
    """Base: a subclass names its surrogate and its search."""

    Options: ClassVar[type[SurrogateOptions]] = SurrogateOptions
    takes = (SCORED,)
    options: Any

    def issues(self, problem: Any) -> list[Issue]:
        o, found = self.options, []
        if problem.shown() < 2:
            where, why = f"problem.percentile={problem.options.percentile:g}", "fewer than 2 designs are shown"
            return [Issue(where, why, "write a larger one")]
        if o.designs > problem.shown():
            where = f"estimator.designs={o.designs}"
            found.append(Issue(where, f"the search starts from {problem.shown():,} shown ones", "write fewer"))
        if o.validation > problem.shown() - 2:
            where = f"estimator.validation={o.validation}"
            found.append(
                Issue(where, f"{problem.shown():,} designs are shown, and 2 have to be fitted to", "write fewer")
            )
        return found

    def work(self, problem: Any) -> float:
        o = self.options
        weights = o.width * (problem.columns() + o.width * (o.depth - 1) + 2)
        return float(o.members) * o.epochs * problem.shown() * weights * (1 if o.sharpness == "none" else 2.5)

    def surrogate(self) -> Any:
        """The surrogate that is fitted."""
        from sparselab.estimation.estimators.surrogates.learner import SurrogateRegressor

        return SurrogateRegressor(**self._of(SurrogateOptions))

    def search(self) -> Any:
        """The search that climbs it."""
        raise NotImplementedError

    def build(self, seed: int) -> OfflineOptimizer:
        from sparselab.estimation.estimators.surrogates.optimizer import OfflineOptimizer

        return OfflineOptimizer(self.surrogate(), self.search(), self.options.designs, seed % 2**32)

    def report(self, fitted: OfflineOptimizer) -> dict[str, float]:
        surrogate = fitted.surrogate_
        found = {"lam": surrogate.lam_, "steps": float(surrogate.n_iter_)}
        if self.options.validation:
            found["error"] = surrogate.validation_error_
        return found

    def _of(self, options: type[AnyOptions]) -> dict[str, Any]:
        """The values of those options that ``options`` has, without ``designs``."""
        return {name: getattr(self.options, name) for name in options.model_fields if name != "designs"}


class AscentOptions(AnyOptions):
    """Gradient ascent."""

    ascent: int = Field(ge=1, description="steps of gradient ascent, at least 1")
    climb: float = Field(gt=0, description="length of such a step over sqrt(features), above 0")


@ESTIMATORS.register("gradient_ascent")
class GradientAscent(Offline):
    """Designs climb the surrogate's gradient; with several members their mean or the least of them."""

    class Options(AscentOptions, SurrogateOptions):
        aggregate: Literal["mean", "min"] = Field(description="of the members: mean or min")

    options: Options

    def search(self) -> Any:
        from sparselab.estimation.estimators.surrogates.search import GradientAscent as Search

        return Search(self.options.ascent, self.options.climb, self.options.aggregate)


class ReinforceOptions(AnyOptions):
    """The policy gradient."""

    rounds: int = Field(ge=1, description="policy gradients, at least 1")
    samples: int = Field(ge=2, description="designs drawn for each, at least 2")
    policy_rate: float = Field(gt=0, description="step size of Adam on the policy, above 0")
    spread: float = Field(gt=0, description="standard deviation of a continuous policy, above 0")
    block: int | None = Field(ge=1, description="neighbouring columns that are one letter, or null: continuous")


@ESTIMATORS.register("reinforce")
class Reinforce(Offline):
    """A distribution of designs is moved by the policy gradient of the prediction (Williams 1992)."""

    class Options(ReinforceOptions, SurrogateOptions):
        pass

    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        found, block = super().issues(problem), self.options.block
        if block is not None and problem.columns() % block:
            where = f"estimator.block={block}"
            found.append(Issue(where, f"{problem.columns()} columns are no whole number of blocks", "write null"))
        return found

    def search(self) -> Any:
        from sparselab.estimation.estimators.surrogates.search import Reinforce as Search

        o = self.options
        return Search(o.rounds, o.samples, o.policy_rate, o.spread, o.block)


@ESTIMATORS.register("cma_es")
class CMAES(Offline):
    """A run of CMA-ES from each start (Hansen 2016, arXiv 1604.00772)."""

    class Options(SurrogateOptions):
        rounds: int = Field(ge=1, description="generations, at least 1")
        sigma: float = Field(gt=0, description="first step size, in standard deviations of the features, above 0")

    options: Options

    def search(self) -> Any:
        from sparselab.estimation.estimators.surrogates.evolution import Evolution

        return Evolution(self.options.rounds, self.options.sigma)


class ConservativeOptions(AnyOptions):
    """Conservatism."""

    alpha: float = Field(gt=0, description="first weight of the overestimation, above 0")
    alpha_rate: float = Field(gt=0, description="step size of Adam on log alpha, above 0")
    limit: float = Field(description="overestimation above which alpha rises, in standard deviations of the score")
    particles: int = Field(ge=1, description="steps of ascent to the designs that are held down, at least 1")


@ESTIMATORS.register("coms")
class COMs(Offline):
    """Gradient ascent on a surrogate that is held down where ascent leads (Trabucco et al. 2021, arXiv 2107.06882)."""

    class Options(AscentOptions, ConservativeOptions, SurrogateOptions):
        pass

    options: Options

    def work(self, problem: Any) -> float:
        return super().work(problem) * (1 + self.options.particles)

    def surrogate(self) -> Any:
        from sparselab.estimation.estimators.surrogates.conservative import ConservativeRegressor

        o = self.options
        return ConservativeRegressor(
            **self._of(SurrogateOptions),
            alpha=o.alpha,
            alpha_rate=o.alpha_rate,
            limit=o.limit,
            particle_rate=o.climb,
            particle_steps=o.particles,
        )

    def search(self) -> Any:
        from sparselab.estimation.estimators.surrogates.search import GradientAscent as Search

        return Search(self.options.ascent, self.options.climb, "mean")
