"""Sparse regression of users: `ldp_sparse`, `ldp_iht`, `dp_central`; not private: `soft_threshold`, `iht`, `lasso`.

The arithmetic is in :mod:`sparselab.estimation.estimators.privacy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.estimation.estimators.estimator import ESTIMATORS, Estimator
from sparselab.estimation.estimators.privacy.gaussian import suffices
from sparselab.estimation.estimators.privacy.limits import cut, radius
from sparselab.estimation.problems.planted import MOMENTS, USERS

NEGLIGIBLE = 1e-3  # as problems.linear.users has it, without numpy


class LimitOptions(AnyOptions):
    """How far a user may reach."""

    clip_x: float | None = Field(gt=0, description="norm of a row, above 0, or null: as clip says")
    clip_y: float | None = Field(gt=0, description="size of y, above 0, or null: as clip says")
    x_scale: float = Field(gt=0, description="assumed standard deviation of an entry of x, above 0")
    y_scale: float = Field(gt=0, description="assumed standard deviation of y, above 0")


class PrivateOptions(LimitOptions):
    """A budget and limits."""

    epsilon: float = Field(gt=0, description="of each user, above 0")
    delta: float | None = Field(gt=0, lt=1, description="of each user, in (0, 1), or null: 1/n")
    clip: Literal["typical", "signs", "all", "data"] = Field(description="typical, signs, all or data (not private)")


class FreeOptions(LimitOptions):
    """Limits that need not be."""

    clip: Literal["none", "typical", "signs", "all", "data"] = Field(description="none, typical, signs, all or data")


class OnUsers(Estimator):
    """Base of all estimators of users."""

    takes: ClassVar[tuple[str, ...]] = (USERS, MOMENTS)

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return [self.build(seed).fit_users(users) for users, seed in zip(X, seeds, strict=True)]

    def issues(self, problem: Any) -> list[Issue]:
        return self._limits(problem) + self._counts(problem)

    def values(self) -> dict[str, Any]:
        """The options as arguments of the estimator that is built."""
        found = self.options.model_dump()
        rule = found.pop("clip", None)
        for name in ("clip_x", "clip_y"):
            if name in found and found[name] is None:
                found[name] = None if rule == "none" else rule
        for name in ("lam", "alpha"):
            if name in found and found[name] is None:
                found[name] = "auto"
        return found

    def _counts(self, problem: Any) -> list[Issue]:
        """More non-zeros than the problem has features."""
        asked, d = self.values(), problem.options.d
        return [
            Issue(f"estimator.{name}={asked[name]}", f"there are {d} features", f"write at most {d}")
            for name in ("k", "k_prime")
            if (asked.get(name) or 0) > d
        ]

    def _limits(self, problem: Any) -> list[Issue]:
        """Limits that moments of users who are not clipped know nothing of."""
        values = self.values()
        if problem.draws != MOMENTS or "clip_x" not in values:
            return []
        if "data" in (values["clip_x"], values["clip_y"]):
            return [Issue("estimator.clip=data", "moments do not show the longest row", "write estimator.clip=all")]
        n, x, y = problem.options.n, values["clip_x"], values["clip_y"]
        far = None if x is None else radius(x, values["x_scale"], n, problem.options.d)
        high = None if y is None else cut(y, values["y_scale"], n)
        chance = problem.law.escape(n, far, high)
        if chance > NEGLIGIBLE:
            where = f"estimator.clip={getattr(self.options, 'clip', '')}"
            says = f"a user may be clipped (chance up to {chance:.1g}), which moments do not show"
            return [Issue(where, says, "write estimator.clip=all, or problem=planted_sparse")]
        return []

    def report(self, fitted: Any) -> dict[str, float]:
        found = {name: getattr(fitted, f"{name}_", None) for name in ("clip_x", "clip_y", "lam")}
        return {name: float(value) for name, value in found.items() if value is not None}


class OnUsersInPrivate(OnUsers):
    """Base of the private ones."""

    def report(self, fitted: Any) -> dict[str, float]:
        spent = fitted.privacy_spent_
        held = {"epsilon": spent.epsilon, "delta": spent.delta} if spent.private else {}
        flags = {name: float(value) for name, value in fitted.flags_.items()}
        return {**super().report(fitted), **held, **flags}

    def _mechanism(self, problem: Any, shares: Sequence[float]) -> list[Issue]:
        """A classical noise that is too weak for its share of epsilon."""
        o: Any = self.options
        delta = 1 / problem.options.n if o.delta is None else o.delta
        if o.mechanism != "gaussian" or all(suffices(share * o.epsilon, share * delta) for share in shares):
            return []
        where = f"estimator.epsilon={o.epsilon:g}"
        return [
            Issue(where, "the classical Gaussian mechanism is too weak for it", "write estimator.mechanism=analytic")
        ]


class ClosedOptions(PrivateOptions):
    """Closed-form estimators from noisy moments."""

    lam: float | None = Field(ge=0, description="level of the soft threshold, at least 0, or null: from lam_scale")
    lam_scale: float | None = Field(ge=0, description="the level over the noise's, at least 0, or null: sqrt(2 log d)")
    split: float = Field(gt=0, lt=1, description="share of the budget for x x^T, in (0, 1)")
    sensitivity: Literal["bound", "exact"] = Field(description="of x x^T: bound (2 r^2) or exact (sqrt(2) r^2)")
    mechanism: Literal["gaussian", "analytic", "joint"] = Field(description="gaussian (classical), analytic or joint")
    kappa: float = Field(gt=0, description="assumed smallest eigenvalue of the covariance, above 0")
    psd_guard: bool = Field(description="true: eigenvalues below kappa / 2 are raised to it")
    theta_norm: float = Field(gt=0, description="assumed length of the parameter, above 0")
    public: bool = Field(description="true: x x^T comes from the problem's public rows")


class Closed(OnUsersInPrivate):
    """Base of `ldp_sparse` and `dp_central`."""

    Options: ClassVar[type[ClosedOptions]] = ClosedOptions
    options: ClosedOptions

    def issues(self, problem: Any) -> list[Issue]:
        o = self.options
        shares = [1.0] if o.public else [o.split, 1 - o.split]
        found = super().issues(problem) + self._mechanism(problem, shares)
        if o.public and not problem.options.public:
            found.append(Issue("estimator.public=true", "the problem has no public rows", "write problem.public=20000"))
        return found

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        public = self.options.public
        return [self.build(seed).fit_users(users, public=public) for users, seed in zip(X, seeds, strict=True)]

    def values(self) -> dict[str, Any]:
        return {name: value for name, value in super().values().items() if name != "public"}


@ESTIMATORS.register("ldp_sparse")
class LDPSparse(Closed):
    """Non-interactive and locally private (Zhu et al. 2024, arXiv 2310.07367, algorithm 1)."""

    class Options(ClosedOptions):
        simulate: Literal["per_user", "aggregate"] = Field(description="per_user, or aggregate (the same law, faster)")

    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        found = super().issues(problem)
        if problem.draws == MOMENTS and self.options.simulate == "per_user":
            found.append(Issue("estimator.simulate=per_user", "moments have no single users", "write aggregate"))
        return found

    def work(self, problem: Any) -> float:
        d = problem.options.d if self.options.simulate == "per_user" else 2
        return float(problem.size()) * (1 + d / 2)

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.closed import LDPSparseRegressor

        return LDPSparseRegressor(**self.values(), random_state=seed)


@ESTIMATORS.register("dp_central")
class DPCentral(Closed):
    """The same with a trusted server that adds the noise once (central model)."""

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.closed import CentralDPRegressor

        return CentralDPRegressor(**self.values(), random_state=seed)


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

    takes = (USERS,)
    options: Options

    def issues(self, problem: Any) -> list[Issue]:
        o, found = self.options, super().issues(problem) + self._mechanism(problem, [1.0])
        if o.mechanism == "duchi" and o.simulate == "aggregate":
            where = "estimator.simulate=aggregate"
            found.append(Issue(where, "the sum of messages on a sphere has no simple law", "write per_user"))
        if o.rounds > problem.options.n:
            where = f"estimator.rounds={o.rounds}"
            found.append(Issue(where, f"there are {problem.options.n} users, and each answers once", "write fewer"))
        return found

    def work(self, problem: Any) -> float:
        return 2.0 * problem.size()

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.iterative import LDPIHTRegressor

        return LDPIHTRegressor(**self.values(), random_state=seed)


@ESTIMATORS.register("soft_threshold")
class SoftThreshold(OnUsers):
    """Not private: the closed form on the data themselves; with lam=0 least squares."""

    class Options(FreeOptions):
        lam: float | None = Field(ge=0, description="level of the soft threshold, at least 0, or null: from lam_scale")
        lam_scale: float | None = Field(ge=0, description="the level over y_scale / sqrt(n), or null: sqrt(2 log d)")
        kappa: float = Field(gt=0, description="assumed smallest eigenvalue of the covariance, above 0")
        psd_guard: bool = Field(description="true: eigenvalues below kappa / 2 are raised to it")

    options: Options

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.closed import SoftThresholdRegressor

        return SoftThresholdRegressor(**self.values())


@ESTIMATORS.register("iht")
class IHT(OnUsers):
    """Not private: iterative hard thresholding on all users in each round."""

    class Options(RoundOptions, FreeOptions):
        pass

    options: Options

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.iterative import IHTRegressor

        return IHTRegressor(**self.values())


@ESTIMATORS.register("lasso")
class Lasso(OnUsers):
    """Not private: the Lasso from the users' second moments."""

    class Options(AnyOptions):
        alpha: float | None = Field(ge=0, description="penalty, at least 0, or null: y_scale sqrt(2 log d / n)")
        y_scale: float = Field(gt=0, description="assumed standard deviation of y's noise, above 0")

    options: Options

    def build(self, seed: int) -> Any:
        from sparselab.estimation.estimators.privacy.iterative import MomentsLasso

        return MomentsLasso(**self.values())
