"""The `estimate` engine: a scikit-learn style estimator, fitted to many draws of a problem [no torch]."""

from __future__ import annotations

from typing import Any

from sparselab.config.schema import Common
from sparselab.core.seeds import derive_seed
from sparselab.estimation.estimators.estimator import ESTIMATORS
from sparselab.estimation.monte_carlo import MonteCarloEngine
from sparselab.running.engine import ENGINES


class EstimateCell(Common):
    """The top level of a cell of `estimate`."""

    problem: dict[str, Any]
    estimator: dict[str, Any]


@ENGINES.register("estimate")
class Estimate(MonteCarloEngine):
    """Draw, fit, and score against the truth, which the estimator never sees."""

    Top = EstimateCell
    reads = ("problem", "estimator")
    paced = ("problem", "estimator")
    group = "estimator"
    registry = ESTIMATORS

    def scores(
        self, problem: Any, member: Any, seed: int, numbers: range
    ) -> tuple[list[dict[str, float]], dict[str, bytes]]:
        samples = [problem.draw(seed, number) for number in numbers]
        seeds = [derive_seed("estimator", seed, number) for number in numbers]
        fitted = member.fit([sample.X for sample in samples], [sample.y for sample in samples], seeds)
        rows = [
            {**sample.measure(found), **member.report(found)} for sample, found in zip(samples, fitted, strict=True)
        ]
        return rows, member.pictures(fitted[0]) if numbers.start == 0 else {}
