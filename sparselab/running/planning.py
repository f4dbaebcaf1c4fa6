"""From overrides to a plan: the one path that `run.py`, `sparselab check` and the sweeps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparselab.config.cell_ref import MASKS
from sparselab.config.compose import compose, defaults
from sparselab.config.schema import UNIDENTIFIED, HostOptions
from sparselab.core.errors import ConfigError, Issue, Issues, did_you_mean, refuse, short
from sparselab.core.memo import once
from sparselab.core.options import validate
from sparselab.running.engine import COMMON, ENGINES, Engine, Plan
from sparselab.running.parents import Named, Parents

# Overrides that say where and how to run this time, not what the cell is; records hold no path of a machine.
PASSING = ("force=", "debug=", "runs_dir=", "data_dir=")
CELL = "cell:"  # part of every override that names another cell


def engine_of(config: dict[str, Any]) -> Engine:
    """The engine that the config names. Raises ConfigError."""
    values = dict(config.get("engine") or {})
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse("engine", "has no name", did_you_mean("", ENGINES))
    cls = ENGINES[name]
    return cls(validate(cls.Options, values, "engine"))


@dataclass
class Read:
    """Overrides as far as they can be read without planning, and the cells that their values name."""

    config: dict[str, Any]
    invalid: set[str]
    issues: Issues
    parents: Parents = field(default_factory=Parents)


def plan_of(overrides: list[str], search_path: str | None = None) -> Plan:
    """The plan of the cell that ``overrides`` describe; ConfigError with every fault that can be foreseen.

    A value that names another cell (:class:`~sparselab.config.cell_ref.CellRef`) stands for a file of it; the plan of that cell
    is then among ``plan.parent_plans``.
    """

    def planned(own: list[str], how: list[str]) -> tuple[str, Plan]:
        plan = once((CELL, *how, *own, search_path), lambda: plan_of([*how, *own], search_path))
        return plan.id, plan

    found, cell = resolved(overrides, search_path, planned), without_passing(overrides)
    with found.issues.collect():
        engine = chosen_engine(found, cell)
        plan = engine.plan(part_of(engine, found.config), cell, frozenset(found.invalid), found.parents.files)
        plan.typed = [text for text in overrides if not text.startswith(("force=", "debug="))]
        plan.config_dir = search_path
        plan.parent_plans = list(found.parents.plans.values())
        plan.parents = list(found.parents.refs)
    found.issues.raise_if_any()
    return plan


def resolved(overrides: list[str], search_path: str | None, named: Named) -> Read:
    """The config of ``overrides``, with files in the places of the cells that they name, as ``named`` has them."""
    composed = compose(overrides, search_path)
    found = Read(composed.config, set(composed.invalid), Issues(list(composed.issues)))
    invalid = found.parents.resolve(composed.config, overrides, named, found.issues)
    found.invalid |= invalid
    return found


def without_passing(overrides: list[str]) -> list[str]:
    """The overrides that say what a cell is."""
    return [text for text in overrides if not text.startswith(PASSING)]


def chosen_engine(found: Read, cell: list[str]) -> Engine:
    """The engine of what was read, once what it does not read is among the issues."""
    engine, issues = engine_of(found.config), found.issues
    foreign = _foreign(engine, cell)
    if "engine" not in found.invalid and not foreign & found.invalid:
        issues.found += _unread(engine, cell)
    for place, ref in found.parents.refs:
        if ref.take == MASKS and "targets" not in engine.reads:
            issues.add(f"{place}: masks of a cell", f"engine={engine.name} has no masks", "take weights alone")
    for group, wrong in engine.complete(found.config, frozenset(found.invalid)).items():
        issues.found += wrong
        found.invalid.add(group)
    if foreign & (found.invalid | {_head(text) for text in cell}):
        issues.raise_if_any()  # what an engine misses that nobody wanted is of no interest
    return engine


def part_of(engine: Engine, config: dict[str, Any]) -> dict[str, Any]:
    """Return the engine's part of the config; of the trainer at least how things run."""
    own = {key: value for key, value in config.items() if key in COMMON or key in engine.reads}
    if "trainer" not in engine.reads:
        own["trainer"] = {key: value for key, value in own["trainer"].items() if key in HostOptions.model_fields}
    return own


def _head(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def _foreign(engine: Engine, overrides: list[str]) -> set[str]:
    """The keys that only other engines read, where nobody chose this one: what sets one of them wanted another engine.

    A member chooses its engine itself, so one with a wrong name has chosen none.
    """
    usual = once("usual engine", lambda: str(defaults()["engine"]["name"]))
    if engine.name != usual or any(_head(text) == "engine" for text in overrides):
        return set()
    return {key for name in ENGINES for key in ENGINES[name].reads} - set(engine.reads)


def _unread(engine: Engine, overrides: list[str]) -> list[Issue]:
    """A fault for each override that would change nothing, because the engine does not look at it."""
    found = []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        head, _, leaf = key.partition(".")
        host = head != "trainer" or leaf in HostOptions.model_fields
        if key in UNIDENTIFIED or head in engine.reads or (head in COMMON and host):
            continue
        others = [name for name in ENGINES if head in ENGINES[name].reads]
        if others:
            fix = f"leave it out, or choose engine={' or engine='.join(others)}"
            found.append(Issue(short(text), f"engine={engine.name} does not read it", fix))
    return found


__all__ = ["ConfigError", "engine_of", "part_of", "plan_of"]
