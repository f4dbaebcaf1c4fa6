"""The `online` engine: a solver asks an environment until it has an answer, in many draws. [no torch]"""

from __future__ import annotations

from typing import Any

from sparselab.config.schema import Common
from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.estimation.monte_carlo import MonteCarloEngine
from sparselab.estimation.solvers.solver import SOLVERS
from sparselab.running.engine import ENGINES, Plan
from sparselab.running.signals import StopFlag
from sparselab.running.single_process import Outcome


class OnlineCell(Common):
    """The top level of a cell of `online`."""

    problem: dict[str, Any]
    solver: dict[str, Any]


@ENGINES.register("online")
class Online(MonteCarloEngine):
    """Draw an environment, let the solver ask, and score its answer and its queries against the truth."""

    Top = OnlineCell
    reads = ("problem", "solver")
    paced = ("problem", "solver")
    group = "solver"
    registry = SOLVERS

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        import numpy as np

        cell, problem, solver, hashes = plan.parts
        rows: list[dict[str, float]] = []
        for number in range(self.options.draws):
            stop.check(f"after {number} of {self.options.draws} draws")
            try:
                environment = problem.draw(cell.seed, number)
                answer = solver.solve(environment, np.random.default_rng(derive_seed("solver", cell.seed, number)))
            except ValueError as error:
                raise RunFailed(f"draw {number}: {error}") from None
            rows.append(environment.measure(answer))
        return self.conclude(problem, hashes, rows)
