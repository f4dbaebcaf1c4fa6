"""A solver: what interacts with an environment until it has an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from sparselab.core.errors import Issue


class Solver:
    """Base of solvers.

    ``takes``   the kinds of environments it can act in (see ``Problem.draws``).
    ``version`` raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: AnyOptions):
        self.options = options

    def issues(self, problem: Any) -> list[Issue]:
        """Return the issues of the options, by themselves or for ``problem`` (which answers without drawing). No numpy."""
        return []

    def work(self, problem: Any) -> float:
        """Return the cost of one draw, in a unit of its own."""
        return float(problem.size())

    def solve(self, environment: Any, rng: np.random.Generator) -> Any:
        """Interact with a fresh environment and return the answer; ``rng`` breaks ties and draws."""
        raise NotImplementedError


SOLVERS: Registry[Solver] = Registry("solver", "sparselab.estimation.solvers")
