"""A problem: data or an environment with a known answer, drawn afresh as often as a cell asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from sparselab.core.errors import Issue


class Sample(Protocol):
    """Data for an estimator, with the truth that scores the fit. The estimator never sees the truth."""

    X: np.ndarray  # (samples, features), float64; nobody may change it
    y: np.ndarray | None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of a fitted estimator against the truth, by name."""
        ...


class Environment(Protocol):
    """An environment for a solver; it counts the queries."""

    def measure(self, answer: Any) -> dict[str, float]:
        """Scores of the solver's answer against the truth, and what it cost, by name."""
        ...


class Problem:
    """Base of problems.

    ``draws``   the kind of thing that :meth:`draw` gives; estimators and solvers say which kinds they take.
    ``random``  whether two draws differ. Of a fixed data set there is one.
    ``version`` raise it when a draw changes: it is part of a cell's id.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    draws: ClassVar[str] = ""
    random: ClassVar[bool] = True

    def __init__(self, options: AnyOptions, data_dir: str | None = None):
        self.options = options
        self.data_dir = data_dir

    def issues(self) -> list[Issue]:
        """Return the issues of the options together. Imports no numpy."""
        return []

    def files(self) -> dict[str, str]:
        """Files whose content the draws depend on, by a name for people. ConfigError where they are missing."""
        return {}

    def places(self) -> tuple[str, ...]:
        """Options that say where something lies. What lies there is in :meth:`files`, so they are no part of an id."""
        return ()

    def size(self) -> int:
        """The number that the cost of a draw grows with: nodes, actions."""
        return 1

    def describe(self) -> str:
        """One line for `sparselab check`: what is drawn, with its sizes."""
        return self.name

    def draw(self, *place: object) -> Any:
        """Make one draw.

        Args:
            *place: the seed and the number of the draw: they decide it wholly (:mod:`sparselab.core.seeds`)

        Returns:
            A :class:`Sample` or an :class:`Environment`, as ``draws`` says.
        """
        raise NotImplementedError


PROBLEMS: Registry[Problem] = Registry("problem", "sparselab.estimation.problems")
