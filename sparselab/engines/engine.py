"""An engine: how a cell is executed. ``plan`` validates everything and costs nothing; ``run`` returns the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparselab.spec.options import Options
from sparselab.spec.registry import Registry


@dataclass
class Plan:
    """A cell that passed every check that can be made without running it.

    config:    the resolved config. overrides: what the user typed.
    id:        hash of what changes the result.
    folder:    where the record goes, ``<runs_dir>/<id>``.
    steps:     optimiser updates; 0 where the engine has none.
    account:   parameters, MACs and FLOPs as far as the outline is known.
    notes:     lines for a person: what could not be checked yet, and why.
    """

    config: dict[str, Any]
    overrides: list[str]
    id: str
    folder: str
    steps: int = 0
    account: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parts: Any = None


class Engine:
    """Base of engines."""

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""

    def __init__(self, options: Options):
        self.options = options

    def plan(self, config: dict[str, Any], overrides: list[str], lost: frozenset[str] = frozenset()) -> Plan:
        """Every check, no torch. Raises Refused with all faults.

        lost: groups of the config that are not what was asked for; only what is independent of them is checked.
        """
        raise NotImplementedError

    def run(self, plan: Plan) -> dict[str, Any]:
        """Execute and return the finished record (already written)."""
        raise NotImplementedError


ENGINES: Registry[Engine] = Registry("engine", "sparselab.engines")
