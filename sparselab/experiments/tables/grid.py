"""From a table to its cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sparselab.config.cell_ref import PHASE, CellRef, names_phase
from sparselab.config.overrides import said
from sparselab.config.plain import written
from sparselab.core.errors import did_you_mean, refuse
from sparselab.core.memo import once
from sparselab.experiments.tables.claims import Layout
from sparselab.experiments.tables.schema import Table, Tier

SHORT = re.compile(r"\{(\w+)\}")
"""A phase by its name alone; ``{seed}`` is the cell's seed."""
PHASES = re.compile(r"\{(\w+)\}|\bphase: (\w+)")


@dataclass(frozen=True)
class Cell:
    """One run of a table: where it stands, and the overrides that make it."""

    row: str
    column: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str]:
        return self.row, self.column

    def __str__(self) -> str:
        return f"({self.row}, {self.column}, seed {self.seed})"


def merge(*lists: Iterable[str]) -> tuple[str, ...]:
    """Lists of ``key=value`` as one, a later one winning.

    Choosing another member of a group drops what was said about the earlier member: after ``model=mlp`` and
    ``model.hidden=[64]`` a later ``model=vit_s`` leaves no ``model.hidden`` behind.
    """
    merged: dict[str, str] = {}
    for override in (item for overrides in lists for item in overrides):
        key, _, value = override.partition("=")
        if key in merged and merged[key] != value:
            merged = {k: v for k, v in merged.items() if not k.startswith(key + ".")}
        merged.pop(key, None)
        merged[key] = value
    return tuple(f"{key}={value}" for key, value in merged.items())


def tier_of(table: Table, tier: str) -> Tier:
    """The tier of that name; ConfigError with the nearest one where there is none."""
    if tier not in table.tiers:
        refuse(f"tier={tier}", f"{table.label} has no such tier", did_you_mean(tier, table.tiers))
    return table.tiers[tier]


def places(table: Table, tier: str) -> list[tuple[str, str]]:
    """(row, column) of every cell of the tier that is not excluded, in the table's order."""
    spec = tier_of(table, tier)
    rows = [name for name in table.rows if spec.rows is None or name in spec.rows]
    columns = [name for name in table.columns if spec.columns is None or name in spec.columns]
    return [(row, column) for row in rows for column in columns if excluded(table, row, column) is None]


def excluded(table: Table, row: str, column: str) -> str | None:
    """Why the table has no such cell, or None where it has one."""
    for item in table.exclude:
        if (item.rows is None or row in item.rows) and (item.columns is None or column in item.columns):
            return item.reason
    return None


def expand(table: Table, tier: str) -> list[Cell]:
    """Every cell of the tier, row by row, column by column, seed by seed.

    ``{seed}`` in an override is the cell's seed: a network that another cell trains is then another one for each. ``{name}`` is
    the cell of that phase, and ``{phase: name, with: {seed: 1{seed}}, take: masks}`` says more of it.
    """
    spec = tier_of(table, tier)
    _, cells = once(
        ("cells", id(table), tier), lambda: (table, _expanded(table, tier, spec))
    )  # holds what it is named by
    return list(cells)


def _expanded(table: Table, tier: str, spec: Tier) -> list[Cell]:
    cells: list[Cell] = []
    for row, column in places(table, tier):
        extra = [item for extra in table.extra if extra.meets(row, column, tier) for item in extra.overrides]
        merged = merge(table.base, spec.base, table.rows[row], table.columns[column], extra, ["seed={seed}"])
        of_seed = [i for i, text in enumerate(merged) if "{" in text]  # the others are every seed's
        for seed in spec.seeds:
            overrides = list(merged)
            for i in of_seed:
                overrides[i] = _filled(merged[i], table, tier, seed)
            cells.append(Cell(row, column, seed, tuple(overrides)))
    return cells


def number_of(table: Table, tier: str, place: tuple[str, str], key: str) -> float | None:
    """The number that the overrides of a cell set ``key`` to; None where they set it to none.

    A key may go on inside a value: ``model.weights.at`` is the point at which a cell takes the weights of another one.
    """
    cell = next((cell for cell in expand(table, tier) if cell.place == place), None)
    for item in () if cell is None else cell.overrides:
        name, _, value = item.partition("=")
        if name == key:
            return _number(value)
        if key.startswith(f"{name}.") and "{" in value:
            return _number(_inside(said(item)[1], key[len(name) + 1 :]))
    return None


def _inside(tree: Any, key: str) -> Any:
    """The value at a dotted key of a tree, whose own keys may have dots; None where nothing does."""
    if not isinstance(tree, dict):
        return None
    if key in tree:
        return tree[key]
    return next((_inside(tree[k], key[len(k) + 1 :]) for k in tree if key.startswith(f"{k}.")), None)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _filled(text: str, table: Table, tier: str, seed: int) -> str:
    """An override with the seed, and with the cells of phases, in the places of what stands for them."""
    if "{" not in text:
        return text
    key, _, value = text.replace("{seed}", str(seed)).partition("=")
    if not phases_in(value):
        return f"{key}={value}"

    def made() -> tuple[Table, str]:
        _, tree = said(f"{key}=" + SHORT.sub(r"{phase: \1}", value))
        return table, f"{key}={written(_with_phases(tree, table, tier, seed))}"

    _, filled = once(("phases", id(table), tier, seed, key, value), made)  # rows and columns share most of their phases
    return filled


def _with_phases(value: Any, table: Table, tier: str, seed: int) -> Any:
    """A value with the whole cell in the place of each phase (``{phase: original, with: {seed: 7}, take: masks}``)."""
    if isinstance(value, list):
        return [_with_phases(item, table, tier, seed) for item in value]
    if not names_phase(value):
        return value
    name, rest = value["phase"], {key: item for key, item in value.items() if key not in PHASE}
    extra = [item for extra in table.extra if extra.meets_phase(name, tier) for item in extra.overrides]
    more = [f"{key}={written(item)}" for key, item in value.get("with", {}).items()]
    merged = merge(table.base, tier_of(table, tier).base, table.phases[name], extra, ["seed={seed}"], more)
    cell = CellRef(tuple(_filled(item, table, tier, seed) for item in merged)).tree()
    return {**cell, **rest}


def phases_in(value: str) -> list[str]:
    """Names of the phases that the value of an override names."""
    return [a or b for a, b in PHASES.findall(value) if a != "seed"]


def rings(table: Table) -> list[str]:
    """Phases that would start from themselves."""
    needs = {
        name: {
            needed
            for items in (own, *(extra.overrides for extra in table.extra if name in (extra.phases or ())))
            for item in items
            for needed in phases_in(item.partition("=")[2])
        }
        for name, own in table.phases.items()
    }

    def reached(name: str, seen: frozenset[str]) -> set[str]:
        return {name}.union(*(reached(n, seen | {n}) for n in needs.get(name, set()) - seen))

    return [name for name in needs if any(name in reached(n, frozenset({n})) for n in needs[name])]


def layout(table: Table, tier: str) -> Layout:
    """Return the part of this tier that a claim may look at."""
    cells = places(table, tier)
    return Layout(
        tuple(dict.fromkeys(row for row, _ in cells)),
        tuple(column for column in table.columns if any(c == column for _, c in cells)),
        frozenset(cells),
        table.dense,
        1 if table.metric.better == "higher" else -1,
        lambda place, key: number_of(table, tier, place, key),
    )
