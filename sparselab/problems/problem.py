"""A problem: data or an environment with a known answer, drawn afresh as often as a cell asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sparselab.spec.options import Options as AnyOptions
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from sparselab.spec.faults import Fault


class Sample(Protocol):
    """What an estimator is fitted to, and what knows how good the fit is. The estimator never sees the truth."""

    X: np.ndarray  # (samples, features), float64; nobody may change it
    y: np.ndarray | None

    def measure(self, fitted: Any) -> dict[str, float]:
        """Scores of a fitted estimator against the truth, by name."""
        ...


class Environment(Protocol):
    """What a solver interacts with; it counts what it is asked."""

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

    def faults(self) -> list[Fault]:
        """What the options say wrong together. No numpy."""
        return []

    def files(self) -> dict[str, str]:
        """Files whose content the draws depend on, by a name for people. Refused where they are missing."""
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
        """One draw. ``place`` (the seed, the number of the draw) decides it wholly: see :mod:`sparselab.spec.address`."""
        raise NotImplementedError


PROBLEMS: Registry[Problem] = Registry("problem", "sparselab.problems")
