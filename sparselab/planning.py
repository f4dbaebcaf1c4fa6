"""From overrides to a plan: the one path that `run.py`, `sparselab check` and the sweeps share."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from sparselab.engines.engine import COMMON, ENGINES, Engine, Plan
from sparselab.spec.compose import compose, defaults
from sparselab.spec.faults import Fault, Faults, Refused, did_you_mean, refuse, short
from sparselab.spec.memo import once
from sparselab.spec.options import validate
from sparselab.spec.schema import UNIDENTIFIED, HostOptions
from sparselab.store.ids import cell_id

# Overrides that say where and how to run this time, not what the cell is; records hold no path of a machine.
PASSING = ("force=", "debug=", "runs_dir=", "data_dir=")
SEED = re.compile(r"seed=(0|[1-9]\d{0,17})")
CELL = "cell:"  # how a value that names another cell begins
MODEL = "model.safetensors"  # the network of a finished cell, in its folder
# What a cell that another one needs takes over from it: how things run, never what is computed.
INHERITED = frozenset(UNIDENTIFIED) - {"logger", "tier", "paper", "force", "debug"}


def engine_of(config: dict[str, Any]) -> Engine:
    """The engine that the config names. Raises Refused."""
    values = dict(config.get("engine") or {})
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse("engine", "has no name", did_you_mean("", ENGINES))
    cls = ENGINES[name]
    return cls(validate(cls.Options, values, "engine"))


def plan_of(overrides: list[str], search_path: str | None = None) -> Plan:
    """The plan of the cell that ``overrides`` describe; Refused with every fault that can be foreseen.

    A value ``cell:<overrides>`` stands for the network of another cell, whose plan is then among ``plan.first``.
    """
    composed = compose(overrides, search_path)
    cell = [text for text in overrides if not text.startswith(PASSING)]
    faults = Faults(list(composed.faults))
    first: dict[str, Plan] = {}
    lost = set(composed.lost)
    with faults.catch():
        _resolve(composed.config, "", [*map(str, overrides)], search_path, first, lost)
    with faults.catch():
        needs = {path: plan.id for path, plan in first.items()}
        engine = engine_of(composed.config)
        foreign = _foreign(engine, overrides)
        if "engine" not in composed.lost and not foreign & lost:
            faults.found += _unread(engine, cell)
        if foreign & (lost | {_head(text) for text in cell}):
            faults.raise_if_any()  # what an engine misses that nobody wanted is of no interest
        plan = engine.plan(part_of(engine, composed.config), cell, frozenset(lost), needs)
        plan.typed = [text for text in overrides if not text.startswith(("force=", "debug="))]
        plan.first = list(first.values())
    faults.raise_if_any()
    return plan


def part_of(engine: Engine, config: dict[str, Any]) -> dict[str, Any]:
    """What of the config is the engine's; of the trainer at least how things run."""
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
    if engine.name != str(defaults()["engine"]["name"]) or any(_head(text) == "engine" for text in overrides):
        return set()
    return {key for name in ENGINES for key in ENGINES[name].reads} - set(engine.reads)


def _unread(engine: Engine, overrides: list[str]) -> list[Fault]:
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
            found.append(Fault(short(text), f"engine={engine.name} does not read it", fix))
    return found


def _resolve(
    node: dict[str, Any],
    where: str,
    outer: list[str],
    search_path: str | None,
    first: dict[str, Plan],
    lost: set[str],
) -> None:
    """Put the weights file of the cell it names in the place of each value ``cell:…``; collect the cells' plans.

    Where such a cell cannot be, the top-level key is among ``lost``: nothing else is to be said about it.
    """
    faults = Faults()
    for key, value in node.items():
        place = f"{where}{key}"
        if isinstance(value, dict):
            with faults.catch():
                _resolve(value, f"{place}.", outer, search_path, first, lost)
        elif isinstance(value, str) and value.startswith(CELL):
            try:
                plan = _named_cell(place, value, outer, search_path)
            except Refused as refused:
                faults.found += refused.faults
                lost.add(place.partition(".")[0])
                continue
            node[key] = str(Path(plan.folder) / MODEL)
            first[node[key]] = plan
    faults.raise_if_any()


def _named_cell(where: str, value: str, outer: list[str], search_path: str | None) -> Plan:
    """The plan of ``cell:<overrides>``. It runs where and how the outer cell runs, but is only what it says itself."""
    try:
        own = shlex.split(value.removeprefix(CELL))
    except ValueError:
        own = []
    if not own:
        refuse(short(f"{where}={value}"), "names no cell", f"write {where}='{CELL}method=dense model=mlp'")
    how = [text for text in outer if text.partition("=")[0] in INHERITED]
    try:
        return once((CELL, *how, *own, search_path), lambda: plan_of([*how, *own], search_path))
    except Refused as refused:
        raise Refused(
            [Fault(f"{where}: {fault.where}", fault.problem, fault.fix) for fault in refused.faults]
        ) from None


def cell_id_of(overrides: list[str]) -> str:
    """The id of the cell that ``overrides`` describe. Of cells that differ in the seed alone one is planned in a pass."""
    rest = [text for text in overrides if not SEED.fullmatch(text)]
    if len(rest) == len(overrides) - 1:
        plan = once(("any seed", *rest), lambda: plan_of(rest))
        if plan.identity is not None:
            (text,) = set(overrides) - set(rest)
            config, extra = plan.identity
            return cell_id({**config, "seed": int(text.removeprefix("seed="))}, extra)
    return plan_of(overrides).id


__all__ = ["Refused", "cell_id_of", "engine_of", "plan_of"]
