"""The `estimate` engine: a scikit-learn style estimator, fitted to many draws of a problem. [no torch]"""

from __future__ import annotations

from functools import partial
from typing import Any

from sparselab.engines.direct import Outcome, write_files
from sparselab.engines.draws import Draws
from sparselab.engines.engine import ENGINES, Plan
from sparselab.engines.signals import StopFlag
from sparselab.estimators.estimator import ESTIMATORS
from sparselab.spec.address import address
from sparselab.spec.faults import RunFailed
from sparselab.spec.schema import Common


class EstimateCell(Common):
    """The top level of a cell of `estimate`."""

    problem: dict[str, Any]
    estimator: dict[str, Any]


@ENGINES.register("estimate")
class Estimate(Draws):
    """Draw, fit, and score against the truth, which the estimator never sees."""

    Top = EstimateCell
    reads = ("problem", "estimator")
    paced = ("problem", "estimator")
    group = "estimator"
    registry = ESTIMATORS

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        cell, problem, estimator, hashes = plan.parts
        rows: list[dict[str, float]] = []
        pictures: dict[str, bytes] = {}
        for start in range(0, self.options.draws, estimator.together):
            stop.check(f"after {start} of {self.options.draws} draws")
            numbers = range(start, min(start + estimator.together, self.options.draws))
            samples = [problem.draw(cell.seed, number) for number in numbers]
            seeds = [address("estimator", cell.seed, number) for number in numbers]
            try:
                fitted = estimator.fit([sample.X for sample in samples], [sample.y for sample in samples], seeds)
            except ValueError as error:
                raise RunFailed(f"draws {numbers.start} to {numbers.stop - 1}: {error}") from None
            if start == 0:
                pictures = estimator.pictures(fitted[0])
            for sample, found in zip(samples, fitted, strict=True):
                rows.append({**sample.measure(found), **estimator.report(found)})
        outcome = self.conclude(problem, hashes, rows)
        if pictures:
            outcome.write = partial(write_files, pictures)
        return outcome
