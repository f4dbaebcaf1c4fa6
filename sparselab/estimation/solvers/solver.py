"""A solver: what interacts with an environment until it has an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.core.registry import Registry
from sparselab.estimation.procedure import Procedure

if TYPE_CHECKING:
    import numpy as np


class Solver(Procedure):
    """Base of solvers: :meth:`solve`."""

    def solve(self, environment: Any, rng: np.random.Generator) -> Any:
        """Interact with an environment until there is an answer.

        Args:
            environment: fresh; it counts the queries
            rng: breaks ties and draws

        Returns:
            The answer, as the environment's ``measure`` takes it.
        """
        raise NotImplementedError


SOLVERS: Registry[Solver] = Registry("solver", "sparselab.estimation.solvers")
