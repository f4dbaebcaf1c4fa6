"""Sparse linear regression of users: `ldp_sparse`, `ldp_iht`, `dp_central`, and without privacy `soft_threshold`, `iht`, `lasso`.

The arithmetic is in :mod:`sparselab.estimators.privacy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from sparselab.estimators.estimator import ESTIMATORS, Estimator
from sparselab.estimators.privacy.gaussian import suffices
from sparselab.estimators.privacy.limits import cut, radius
from sparselab.spec.faults import Fault
from sparselab.spec.options import Options as AnyOptions

Rule = Literal["typical", "signs", "all", "data"]
NEGLIGIBLE = 1e-3  # as problems.linear.users has it, without numpy


class LimitOptions(AnyOptions):
    """How far a user may reach."""

    x_scale: float = Field(gt=0, description="assumed standard deviation of an entry of x, above 0")
    y_scale: float = Field(gt=0, description="assumed standard deviation of y, above 0")


class PrivateOptions(LimitOptions):
    """A budget and limits."""

    epsilon: float = Field(gt=0, description="of each user, above 0")
    delta: float | None = Field(gt=0, lt=1, description="of each user, in (0, 1), or null: 1/n")
    clip_x: float | Rule = Field(description="norm of a row: above 0, or typical, signs, all, data (not private)")
    clip_y: float | Rule = Field(description="size of y: above 0, or typical, signs, all, data (not private)")


class FreeOptions(LimitOptions):
    """Limits that need not be."""

    clip_x: float | Rule | None = Field(description="norm of a row: above 0, typical, signs, all, data, or null")
    clip_y: float | Rule | None = Field(description="size of y: above 0, typical, signs, all, data, or null")


class OnUsers(Estimator):
    """What all estimators of users share."""

    takes = ("users", "moments")
    fits: ClassVar[dict[str, Any]] = {}

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return [self.build(seed).fit_users(users) for users, seed in zip(X, seeds, strict=True)]

    def faults(self, problem: Any) -> list[Fault]:
        return self._limits(problem)

    def _limits(self, problem: Any) -> list[Fault]:
        """Clips that are no limits, or that moments of users who are not clipped do not know."""
        o: Any = self.options
        found, rules = [], {name: getattr(o, name, None) for name in ("clip_x", "clip_y")}
        for name, rule in rules.items():
            if isinstance(rule, int | float) and rule <= 0:
                found.append(Fault(f"estimator.{name}={rule:g}", "is no limit", "write a number above 0"))
            if rule == "data" and problem.draws == "moments":
                where = f"estimator.{name}=data"
                found.append(
                    Fault(where, "moments do not show the longest row", "write all, or problem=planted_sparse")
                )
        if found or problem.draws != "moments":
            return found
        n, x, y = problem.options.n, rules["clip_x"], rules["clip_y"]
        far = None if x is None else radius(x, o.x_scale, n, problem.options.d)
        high = None if y is None else cut(y, o.y_scale, n)
        chance = problem.law.escape(n, far, high)
        if chance > NEGLIGIBLE:
            problem_ = f"a user may be clipped (chance up to {chance:.1g}), which moments do not show"
            return [Fault(f"estimator.clip_x={x} clip_y={y}", problem_, "write all, or problem=planted_sparse")]
        return []

    def report(self, fitted: Any) -> dict[str, float]:
        found = {name: getattr(fitted, f"{name}_", None) for name in ("clip_x", "clip_y", "lam")}
        return {name: float(value) for name, value in found.items() if value is not None}


class OnUsersInPrivate(OnUsers):
    """What the private ones share."""

    def report(self, fitted: Any) -> dict[str, float]:
        spent = fitted.privacy_spent_
        held = {"epsilon": spent.epsilon, "delta": spent.delta} if spent.private else {}
        flags = {name: float(value) for name, value in fitted.flags_.items()}
        return {**super().report(fitted), **held, **flags}

    def _mechanism(self, problem: Any, shares: Sequence[float]) -> list[Fault]:
        """A classical noise that is too weak for its share of epsilon."""
        o: Any = self.options
        delta = 1 / problem.options.n if o.delta is None else o.delta
        if o.mechanism != "gaussian" or all(suffices(share * o.epsilon, share * delta) for share in shares):
            return []
        where = f"estimator.epsilon={o.epsilon:g}"
        return [
            Fault(where, "the classical Gaussian mechanism is too weak for it", "write estimator.mechanism=analytic")
        ]


class ClosedOptions(PrivateOptions):
    """Closed-form estimators from noisy moments."""

    lam: float | Literal["auto"] = Field(description="level of the soft threshold, at least 0, or auto")
    lam_scale: float | None = Field(
        ge=0, description="auto's level over the noise's, at least 0, or null: sqrt(2 log d)"
    )
    split: float = Field(gt=0, lt=1, description="share of the budget for x x^T, in (0, 1)")
    sensitivity: Literal["bound", "exact"] = Field(description="of x x^T: bound (2 r^2) or exact (sqrt(2) r^2)")
    mechanism: Literal["gaussian", "analytic", "joint"] = Field(description="gaussian (classical), analytic or joint")
    kappa: float = Field(gt=0, description="assumed smallest eigenvalue of the covariance, above 0")
    psd_guard: bool = Field(description="true: eigenvalues below kappa / 2 are raised to it")
    theta_norm: float = Field(gt=0, description="assumed length of the parameter, above 0")
    public: bool = Field(description="true: x x^T comes from the problem's public rows")


def closed_faults(lam: float | str) -> list[Fault]:
    """A level below 0."""
    if isinstance(lam, str) or lam >= 0:
        return []
    return [Fault(f"estimator.lam={lam:g}", "is below 0", "write auto, or a number of at least 0")]


class Closed(OnUsersInPrivate):
    """Base of `ldp_sparse` and `dp_central`."""

    Options: ClassVar[type[ClosedOptions]] = ClosedOptions
    options: ClosedOptions

    def faults(self, problem: Any) -> list[Fault]:
        o = self.options
        shares = [1.0] if o.public else [o.split, 1 - o.split]
        found = super().faults(problem) + closed_faults(o.lam) + self._mechanism(problem, shares)
        if o.public and not problem.options.public:
            found.append(Fault("estimator.public=true", "the problem has no public rows", "write problem.public=20000"))
        return found

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        public = self.options.public
        return [self.build(seed).fit_users(users, public=public) for users, seed in zip(X, seeds, strict=True)]

    def _values(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.model_dump().items() if name != "public"}


@ESTIMATORS.register("ldp_sparse")
class LDPSparse(Closed):
    """Non-interactive and locally private (Zhu et al. 2024, arXiv 2310.07367, algorithm 1)."""

    class Options(ClosedOptions):
        simulate: Literal["per_user", "aggregate"] = Field(description="per_user, or aggregate (the same law, faster)")

    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        found = super().faults(problem)
        if problem.draws == "moments" and self.options.simulate == "per_user":
            found.append(Fault("estimator.simulate=per_user", "moments have no single users", "write aggregate"))
        return found

    def work(self, problem: Any) -> float:
        d = problem.options.d if self.options.simulate == "per_user" else 2
        return float(problem.size()) * (1 + d / 2)

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.closed import LDPSparseRegressor

        return LDPSparseRegressor(**self._values(), random_state=seed)


@ESTIMATORS.register("dp_central")
class DPCentral(Closed):
    """The same with a trusted server that adds the noise once (central model)."""

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.closed import CentralDPRegressor

        return CentralDPRegressor(**self._values(), random_state=seed)


class RoundOptions(AnyOptions):
    """Iterative hard thresholding."""

    k: int = Field(ge=1, description="assumed non-zeros, at least 1")
    k_prime: int | None = Field(ge=1, description="entries kept, at least 1, or null: 2 k")
    rounds: int = Field(ge=1, description="at least 1")
    step: float = Field(gt=0, description="of the gradient, above 0")
    ball: float = Field(gt=0, description="radius that the parameter is projected into, above 0")


@ESTIMATORS.register("ldp_iht")
class LDPIHT(OnUsersInPrivate):
    """Sequentially interactive and locally private (Zhu et al. 2024, arXiv 2310.07367)."""

    class Options(RoundOptions, PrivateOptions):
        clip_residual: float | None = Field(gt=0, description="size of a residual, above 0, or null: clip_y")
        mechanism: Literal["duchi", "gaussian", "analytic"] = Field(
            description="duchi (pure epsilon), gaussian, analytic"
        )
        simulate: Literal["per_user", "aggregate"] = Field(description="per_user, or aggregate (Gaussian noise only)")

    takes = ("users",)
    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        o, found = self.options, super().faults(problem) + self._mechanism(problem, [1.0])
        if o.mechanism == "duchi" and o.simulate == "aggregate":
            where = "estimator.simulate=aggregate"
            found.append(Fault(where, "the sum of messages on a sphere has no simple law", "write per_user"))
        if o.rounds > problem.options.n:
            where = f"estimator.rounds={o.rounds}"
            found.append(Fault(where, f"there are {problem.options.n} users, and each answers once", "write fewer"))
        return found

    def work(self, problem: Any) -> float:
        return 2.0 * problem.size()

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.iterative import LDPIHTRegressor

        return LDPIHTRegressor(**self.options.model_dump(), random_state=seed)


@ESTIMATORS.register("soft_threshold")
class SoftThreshold(OnUsers):
    """Not private: the closed form on the data themselves; with lam=0 least squares."""

    class Options(FreeOptions):
        lam: float | Literal["auto"] = Field(description="level of the soft threshold, at least 0, or auto")
        lam_scale: float | None = Field(ge=0, description="auto's level over y_scale / sqrt(n), or null: sqrt(2 log d)")
        kappa: float = Field(gt=0, description="assumed smallest eigenvalue of the covariance, above 0")
        psd_guard: bool = Field(description="true: eigenvalues below kappa / 2 are raised to it")

    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        return super().faults(problem) + closed_faults(self.options.lam)

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.closed import SoftThresholdRegressor

        return SoftThresholdRegressor(**self.options.model_dump())


@ESTIMATORS.register("iht")
class IHT(OnUsers):
    """Not private: iterative hard thresholding on all users in each round."""

    class Options(RoundOptions, FreeOptions):
        pass

    options: Options

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.iterative import IHTRegressor

        return IHTRegressor(**self.options.model_dump())


@ESTIMATORS.register("lasso")
class Lasso(OnUsers):
    """Not private: the Lasso from the users' second moments."""

    class Options(AnyOptions):
        alpha: float | Literal["auto"] = Field(description="penalty, at least 0, or auto: y_scale sqrt(2 log d / n)")
        y_scale: float = Field(gt=0, description="assumed standard deviation of y's noise, above 0")

    options: Options

    def faults(self, problem: Any) -> list[Fault]:
        alpha = self.options.alpha
        if isinstance(alpha, str) or alpha >= 0:
            return []
        return [Fault(f"estimator.alpha={alpha:g}", "is below 0", "write auto, or a number of at least 0")]

    def build(self, seed: int) -> Any:
        from sparselab.estimators.privacy.iterative import MomentsLasso

        return MomentsLasso(**self.options.model_dump())
