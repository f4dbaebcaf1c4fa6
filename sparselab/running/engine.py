"""An engine: how a cell is executed. ``plan`` validates everything and costs nothing; ``run`` returns the record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from sparselab.config.cell_ref import CellRef
from sparselab.config.schema import Common
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

Identity = tuple[dict[str, Any], dict[str, Any]]


@dataclass
class Plan:
    """A cell that passed every check that can be made without running it.

    config:    the resolved config. overrides: what the user typed.
    id:        hash of what changes the result.
    folder:    where the record goes, ``<runs_dir>/<id>``.
    steps:     optimiser updates; 0 where the engine has none.
    size:      how much there is to do, in words ("760 updates", "100 draws").
    work:      what it costs, in a unit of the engine's own: time goes with it (dense FLOPs of training, say).
    cost:      parameters, MACs and FLOPs as far as the model spec is known.
    facts:     (label, text) lines that `sparselab check` prints.
    typed:     the overrides as typed, with folders; for the command that is printed, never for a record.
    config_dir: the user's folder of configs that they were read with; for that command too.
    notes:     lines for a person: what could not be checked yet, and why.
    dependencies: files that other cells make, with the ids of these cells. parent_plans: their plans; they run first.
    parents:   (key of the config, what it takes of which cell), one for each of those files.
    identity:  what the id is a hash of (:func:`sparselab.storage.ids.cell_id`): a config, and what it does not say.
    """

    config: dict[str, Any]
    overrides: list[str]
    id: str
    folder: str
    steps: int = 0
    size: str = ""
    work: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)
    facts: list[tuple[str, str]] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    config_dir: str | None = None
    notes: list[str] = field(default_factory=list)
    parts: Any = None
    dependencies: dict[str, str] = field(default_factory=dict)
    parent_plans: list[Plan] = field(default_factory=list)
    parents: list[tuple[str, CellRef]] = field(default_factory=list)
    identity: Identity = field(default_factory=lambda: ({}, {}))

    def recorded_config(self) -> dict[str, Any]:
        """The config without folders; a file that another cell makes is ``cell:<id>``."""
        return {key: self._named(value) for key, value in self.config.items() if key not in ("runs_dir", "data_dir")}

    def _named(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._named(item) for item in value]
        return f"cell:{self.dependencies[value]}" if isinstance(value, str) and value in self.dependencies else value


COMMON = tuple(Common.model_fields)
NOTHING: Mapping[str, str] = MappingProxyType({})


class Engine(ABC):
    """Base of engines.

    reads:  the groups and keys of the config that its cells are made of, beside those that every cell has
            (:data:`COMMON`). What it does not read is no part of a cell, and refused where somebody types it.
    paced:  groups whose members decide how fast the work goes; earlier records of the same ones foretell the time.
    guess:  work per second on two ordinary cores where no record says better; 0: there is nothing to guess from.
    start:  seconds that any cell takes beside its work, where no record says better.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    paced: ClassVar[tuple[str, ...]] = ()
    guess: ClassVar[float] = 0.0
    start: ClassVar[float] = 1.0

    def __init__(self, options: Any):
        self.options = options

    def complete(self, config: dict[str, Any], invalid: frozenset[str]) -> dict[str, list[Issue]]:
        """Fill in values of the config that depend on other groups, before the cell is identified; by default none.

        invalid: groups of which nothing is known. Returns the issues by the group that they make invalid.
        """
        return {}

    @abstractmethod
    def plan(
        self,
        config: dict[str, Any],
        overrides: list[str],
        invalid: frozenset[str] = frozenset(),
        dependencies: Mapping[str, str] = NOTHING,
    ) -> Plan:
        """Every check, no torch. Raises ConfigError with all issues.

        invalid: groups of the config that are not what was asked for; only what is independent of them is checked.
        dependencies: path of a weights file to the id of the cell that makes it. The file need not be there yet.
        """

    def identity(self, config: dict[str, Any], dependencies: Mapping[str, str] = NOTHING) -> Identity:
        """Return the values that a cell's id is a hash of, with only the checks that they need. Raises ConfigError.

        It depends on the seed in nothing but the config's ``seed``: cells that differ in it alone are told apart by it.
        """
        return self.plan(config, [], dependencies=dependencies).identity

    @classmethod
    def trace(cls, plan: Plan) -> None:
        """Complete a plan, for a person to read, with what only building the network tells; by default nothing.

        It may import torch. Raises ConfigError with what running the plan would refuse then.
        """
        return

    @abstractmethod
    def run(self, plan: Plan) -> dict[str, Any]:
        """Execute and return the finished record (already written)."""

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        """(label, text) of what a researcher can quote of a finished cell; by default every metric."""
        return [(name, f"{value:.6g}") for name, value in record["metrics"].items()]

    @classmethod
    def alike(cls, record: dict[str, Any], plan: Plan) -> bool:
        """True if the work of a finished cell of this engine goes as fast as the plan's."""
        return all(record["config"][key].get("name") == plan.config[key].get("name") for key in cls.paced)

    @classmethod
    def pace_of(cls, record: dict[str, Any]) -> tuple[float, float] | None:
        """Return (seconds beside the work, seconds per unit of work) of a finished cell.

        None where it was hardly more than its start.
        """
        seconds, work = float(record["seconds"]), cls.work_of(record)
        return (cls.start, (seconds - cls.start) / work) if work > 0 and seconds > 2 * cls.start else None

    @classmethod
    def guessed(cls, plan: Plan) -> float | None:
        """Seconds that the plan may take where no record of its kind is there; None where nothing is known."""
        return cls.start + plan.work / cls.guess if cls.guess else None

    @staticmethod
    def work_of(record: dict[str, Any]) -> float:
        """Return the cost of a finished cell, in the unit of ``Plan.work``; 0 if the record does not say."""
        return float(record["account"].get("work", 0.0))


ENGINES: Registry[Engine] = Registry("engine", "sparselab.*.engine")
