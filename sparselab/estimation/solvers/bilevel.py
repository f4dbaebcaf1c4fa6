"""Solvers of two-level problems: the penalty method of Kwon et al. (2024, arXiv 2309.01753) and what it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.solvers.solver import SOLVERS, Solver

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.levels.environment import Answer, Environment


class LevelOptions(AnyOptions):
    """Options of every solver here."""

    steps: int = Field(ge=1, description="most steps of x, at least 1")


class SampledOptions(LevelOptions):
    """Options of solvers that may see samples instead of gradients."""

    batch: int | None = Field(ge=1, description="samples a gradient, at least 1; null: exact gradients")


class LevelSolver(Solver):
    """Base of the solvers of two-level problems.

    ``second`` asks for second derivatives, and so for a strongly convex lower level without constraints.
    """

    Options: ClassVar[type[AnyOptions]] = LevelOptions
    takes = ("two-level problem",)
    second: ClassVar[bool] = False
    options: Any

    def exact(self) -> bool:
        """True where only gradients without error will do."""
        return getattr(self.options, "batch", None) is None

    def issues(self, problem: Any) -> list[Issue]:
        found = []
        noise = getattr(problem.options, "noise", 0.0)
        if noise and self.exact():
            fix = "write solver.batch=1" if "batch" in type(self.options).model_fields else "write problem.noise=0.0"
            found.append(Issue(f"problem.noise={noise:g}", "this solver asks for gradients without error", fix))
        if self.second and (problem.constrained or not problem.curved):
            why = "constrained" if problem.constrained else "not strongly convex"
            fix = "write problem=bilevel_quadratic or solver=bilevel_penalty"
            found.append(Issue(f"problem={problem.name} solver={self.name}", f"the lower level is {why}", fix))
        return found

    def work(self, problem: Any) -> float:
        inner = getattr(self.options, "inner_steps", 1)
        return float(problem.size()) * getattr(self.options, "steps", 1) * inner


@SOLVERS.register("bilevel_penalty")
class BilevelPenalty(LevelSolver):
    """Gradient descent on the penalty function: in two loops, or in one with momentum."""

    class Options(LevelOptions):
        variant: Literal["double", "single"] = Field(description="double (two loops) or single (one, with momentum)")
        sigma: float = Field(gt=0, description="the penalty parameter (1 / lambda), above 0")
        sigma_power: float = Field(ge=0, description="sigma falls as step^-power; 0: constant")
        lr_x: float = Field(gt=0, description="step of x, above 0; it is lr_x * sigma^lr_x_power")
        lr_x_power: float = Field(ge=0, description="power of sigma in the step of x, at least 0")
        lr_y: float = Field(gt=0, le=1, description="step of y times curvature, in (0, 1]")
        lr_z: float = Field(gt=0, le=1, description="step of z times curvature, in (0, 1]")
        inner_steps: int = Field(ge=1, description="steps of y and z for each of x (double loop), at least 1")
        rho: float | None = Field(gt=0, description="proximal smoothing of both lower levels, above 0; null: none")
        beta: float = Field(gt=0, le=1, description="how far y and z follow the smoothed steps, in (0, 1]")
        batch: float | None = Field(gt=0, description="samples a gradient (rounded up), above 0; null: exact gradients")
        batch_power: float = Field(ge=0, description="the batch is batch * sigma^-power; at least 0")
        eta: float = Field(
            gt=0, description="momentum's forgetting (single loop), above 0; 1: plain stochastic gradients"
        )
        eta_power: float = Field(ge=0, description="eta is min(1, eta * sigma^power); at least 0")
        shared: bool = Field(description="true: y and z see the same samples")

    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        found, o = super().issues(problem), self.options
        if o.variant == "single" and o.inner_steps != 1:
            found.append(Issue(f"solver.inner_steps={o.inner_steps}", "one loop has one step", "write 1"))
        if o.variant == "double" and (o.eta != 1 or o.eta_power != 0):
            where = f"solver.eta={o.eta:g} solver.eta_power={o.eta_power:g}"
            found.append(Issue(where, "two loops have no momentum", "write solver.eta=1.0 solver.eta_power=0.0"))
        return found

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from math import inf

        from sparselab.estimation.solvers.twolevel.penalty import VARIANTS, Settings

        values = self.options.model_dump()
        variant, rho = values.pop("variant"), values.pop("rho")
        return VARIANTS[variant](environment, Settings(**values, rho=inf if rho is None else rho))


@SOLVERS.register("penalty_function")
class PenaltyFunction(LevelSolver):
    """The penalty function and its gradient at the problem's probes, both lower levels minimised."""

    class Options(AnyOptions):
        sigma: float = Field(gt=0, description="the penalty parameter, above 0")
        inner_steps: int = Field(ge=1, description="most steps of each minimisation, at least 1")
        tol: float = Field(ge=0, description="projected gradient at which a minimisation ends, at least 0")

    options: Options

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.problems.levels.environment import Answer
        from sparselab.estimation.solvers.twolevel.penalty import penalty_function

        o, compared = self.options, []
        instance = environment.instance
        y = z = instance.y0
        for x in instance.probes:
            value, gradient, y, z = penalty_function(environment, x, o.sigma, o.inner_steps, o.tol)
            compared.append((value, gradient))
        return Answer(instance.probes[-1], y, z, o.sigma, 0, compared)


@SOLVERS.register("f2sa")
class F2SA(LevelSolver):
    """F2SA (Kwon et al. 2023): a growing multiplier and decaying steps."""

    class Options(SampledOptions):
        lr_x: float = Field(gt=0, description="first step of x, above 0")
        lr_y: float = Field(gt=0, description="first step of y, on f + lambda g, above 0")
        lr_z: float = Field(gt=0, description="first step of z, above 0")
        lambda0: float = Field(gt=0, description="first multiplier (1 / sigma), above 0")
        growth: float = Field(ge=0, description="first growth of the multiplier, at least 0")
        power_x: float = Field(ge=0, description="the step of x falls as step^-power")
        power_y: float = Field(ge=0, description="the step of y falls as step^-power")
        power_z: float = Field(ge=0, description="the step of z falls as step^-power")
        growth_power: float = Field(ge=0, description="the growth falls as step^-power")
        inner_steps: int = Field(ge=1, description="steps of y and z for each of x, at least 1")

    options: Options

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.solvers.twolevel.f2sa import Settings, f2sa

        return f2sa(environment, Settings(**self.options.model_dump()))


@SOLVERS.register("v_pbgd")
class ValueGap(LevelSolver):
    """V-PBGD (Shen & Chen 2023, arXiv 2302.05185): joint steps on the upper level plus the value gap."""

    class Options(SampledOptions):
        lr_x: float = Field(gt=0, description="step of x, above 0")
        lr_y: float = Field(gt=0, description="step of y, above 0")
        lr_z: float = Field(gt=0, description="step of z, above 0")
        gamma0: float = Field(ge=0, description="first weight of the gap, at least 0")
        gamma_max: float = Field(gt=0, description="last weight of the gap, above 0")
        ramp: int = Field(ge=1, description="steps from the first weight to the last, at least 1")
        inner_steps: int = Field(ge=1, description="steps of z for each of x and y, at least 1")

    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        found, o = super().issues(problem), self.options
        if o.gamma0 > o.gamma_max:
            where = f"solver.gamma0={o.gamma0:g}"
            found.append(Issue(where, "is above solver.gamma_max", f"write at most {o.gamma_max:g}"))
        if o.ramp > o.steps:
            found.append(
                Issue(f"solver.ramp={o.ramp}", "the weight never reaches gamma_max", f"write at most {o.steps}")
            )
        return found

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.solvers.twolevel.value_gap import Settings, value_gap

        return value_gap(environment, Settings(**self.options.model_dump()))


@SOLVERS.register("implicit")
class Implicit(LevelSolver):
    """Implicit differentiation with conjugate gradients: needs second derivatives."""

    class Options(SampledOptions):
        lr_x: float = Field(gt=0, description="step of x, above 0")
        lr_y: float = Field(gt=0, le=1, description="step of y times curvature, in (0, 1]")
        inner_steps: int = Field(ge=1, description="steps of y for each of x, at least 1")
        cg_steps: int = Field(ge=1, description="most steps of conjugate gradients, at least 1")

    second = True
    options: Options

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.solvers.twolevel.implicit import Settings, implicit

        return implicit(environment, Settings(**self.options.model_dump()))


@SOLVERS.register("one_level")
class OneLevel(LevelSolver):
    """One of the levels minimised in y, x where the problem puts it: the control."""

    class Options(AnyOptions):
        level: Literal["lower", "upper"] = Field(description="lower or upper")
        steps: int = Field(ge=1, description="most steps, at least 1")
        tol: float = Field(ge=0, description="projected gradient at which it ends, at least 0")

    options: Options

    def solve(self, environment: Environment, rng: np.random.Generator) -> Answer:
        from sparselab.estimation.solvers.twolevel.one_level import one_level

        return one_level(environment, self.options.level == "upper", self.options.steps, self.options.tol)
