"""Procedures that an engine of draws runs on a problem: the base of estimators and solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options as AnyOptions

if TYPE_CHECKING:
    from sparselab.core.errors import Issue


class Procedure:
    """Base of estimators and of solvers.

    ``takes``    the kinds of draws that it can be given (see ``Problem.draws``).
    ``together`` draws that are handed over at once.
    ``version``  raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[int] = 1

    def __init__(self, options: AnyOptions):
        self.options = options

    def issues(self, problem: Any) -> list[Issue]:
        """Return the issues of the options, by themselves or for ``problem`` (which answers without drawing). No numpy."""
        return []

    def work(self, problem: Any) -> float:
        """Return the cost of one draw, in a unit of its own."""
        return float(problem.size())
