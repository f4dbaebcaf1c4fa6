"""The `online` engine: a solver asks an environment until it has an answer, in many draws [no torch]."""

from __future__ import annotations

from typing import Any

from sparselab.config.schema import Common
from sparselab.core.seeds import derive_seed
from sparselab.estimation.monte_carlo import MonteCarloEngine
from sparselab.estimation.solvers.solver import SOLVERS
from sparselab.running.engine import ENGINES


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

    def scores(
        self, problem: Any, member: Any, seed: int, numbers: range
    ) -> tuple[list[dict[str, float]], dict[str, bytes]]:
        import numpy as np

        rows = []
        for number in numbers:
            environment = problem.draw(seed, number)
            answer = member.solve(environment, np.random.default_rng(derive_seed("solver", seed, number)))
            rows.append(environment.measure(answer))
        return rows, {}
