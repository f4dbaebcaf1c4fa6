"""Records of an older layout, brought to today's. Only names change: no metric, and no id without a proof.

Each layout is a step of :data:`sparselab.core.renames.RENAMES`. An id is a hash of a cell's identity, so the identity of
today with the old names put back must hash to the old id; then the two ids are of one cell. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparselab.core.errors import RunFailed, refuse
from sparselab.core.renames import CELL, RENAMES, replaced
from sparselab.storage import record as records
from sparselab.storage.atomic import shown
from sparselab.storage.ids import cell_id

Identity = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Traced:
    """A cell's id today, its id in an older layout, and old ids to new ones of the cells that it names."""

    id: str
    former: str
    cells: Mapping[str, str] = field(default_factory=dict)


Trace = Callable[[Sequence[str], int], Traced]
"""Overrides with today's names, and the layout of the former id, to the ids. ConfigError where they cannot be told."""


def override(text: str, schema: int) -> str:
    """An override of a record of the layout ``schema`` as it is written today."""
    for step in _steps(schema):
        text = step.override(text)
    return text


def former_id(identity: Identity, cells: Mapping[str, str], schema: int) -> str:
    """The id that a cell of ``identity`` had in the layout ``schema``.

    cells: new ids to old ones of the cells that it names.
    """
    for step in reversed(_steps(schema)):
        identity = step.undone(identity)
    config, extra = replaced(list(identity), lambda text: _of_cell(text, cells))
    return cell_id(config, extra)


def migrated(record: Any, where: str, trace: Trace, outdated: bool = False) -> dict[str, Any]:
    """``record`` in today's layout, sealed; one of today's layout as it is.

    Where the id changes the old one is kept: ``migrated`` lists the former ids, oldest first. ConfigError, naming ``where``,
    for what is no sound record, for a newer one, and for one whose cell gives another id today for another reason than names
    (a method's newer version, other data). With ``outdated`` that one keeps its id, which no cell of today has.
    """
    schema = _checked(record, where)
    steps = _steps(schema)
    if not steps:
        return dict(record)
    config, overrides = record["config"], [override(text, schema) for text in record["overrides"]]
    for step in steps:
        config = step.config(config)
    body = {**record, "config": config, "overrides": overrides}
    if config != record["config"] or overrides != record["overrides"] or CELL in json.dumps(config):
        traced = trace(overrides, schema)
        proven = traced.former == record["id"]
        if not proven and not outdated:
            problem = f"cell {record['id']} is {traced.id} today, not by names alone"
            refuse(where, problem, "run it again, set SPARSELAB_DATA, or add --outdated")
        body["config"] = replaced(config, lambda text: _of_cell(text, traced.cells))
        if proven and traced.id != record["id"]:
            body |= {"id": traced.id, "migrated": [*record.get("migrated", []), record["id"]]}
    try:
        return records.sealed(body)
    except RunFailed as failed:
        refuse(where, f"cannot be sealed again ({failed})", "run the cell again")


def _of_cell(text: str, ids: Mapping[str, str]) -> str:
    """A value that names a cell (``cell:<id>``, or with ``@<point>`` behind it) with its other id; any other text as it is."""
    name, at, point = text.partition("@")
    id = name.removeprefix(CELL)
    return f"{CELL}{ids[id]}{at}{point}" if name.startswith(CELL) and id in ids else text


def _steps(schema: int) -> list[Any]:
    return [step for step in RENAMES if step.schema > schema]


def _checked(record: Any, where: str) -> int:
    """The layout of a record whose seal fits and whose parts are what they should be; else ConfigError."""
    try:
        schema, id = record["schema"], record["id"]
        sound = isinstance(record, dict) and type(schema) is int and schema >= 1 and isinstance(id, str)
        sound = sound and records.unchanged(records.plainly(json.dumps(record)))
        sound = sound and isinstance(record["config"], dict) and isinstance(record["overrides"], list)
        sound = sound and all(isinstance(text, str) for text in record["overrides"])
        sound = sound and isinstance(record.get("migrated", []), list)
    except (KeyError, TypeError, ValueError, RecursionError):
        sound, schema = False, 0
    if not sound:
        refuse(where, "corrupt or half-written record", "restore the file, or run the cell again")
    if schema > records.SCHEMA:
        problem = f"schema {shown(schema, 12)} is newer than this sparselab's {records.SCHEMA}"
        refuse(where, problem, "update sparselab")
    return int(schema)
