"""From a table to its cells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from sparselab.core.errors import did_you_mean, refuse
from sparselab.core.memo import once
from sparselab.experiments.tables.claims import Layout
from sparselab.experiments.tables.schema import Table, Tier

PHASE = re.compile(r"\{(\w+)\}")
"""A value that stands for the network of a phase."""


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

    ``{seed}`` in an override is the cell's seed: a network that another cell trains (``cell:… seed={seed}``) is then
    another one for each. A value ``{name}`` is the cell of that phase.
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
        cells += [
            Cell(row, column, seed, tuple(_filled(text, table, tier, seed) for text in merged)) for seed in spec.seeds
        ]
    return cells


def number_of(table: Table, tier: str, place: tuple[str, str], key: str) -> float | None:
    """The number that the overrides of a cell set ``key`` to; None where they set it to none."""
    for cell in expand(table, tier):
        if cell.place == place:
            value = next((item.partition("=")[2] for item in cell.overrides if item.startswith(f"{key}=")), "")
            try:
                return float(value)
            except ValueError:
                return None
    return None


def _filled(text: str, table: Table, tier: str, seed: int) -> str:
    """An override with the seed, and with the cell of a phase, in the place of what stands for them."""
    if "{" not in text:
        return text
    key, _, value = text.partition("=")
    named = PHASE.fullmatch(value)
    if named is None or named[1] not in table.phases:
        return text.replace("{seed}", str(seed))
    name = named[1]
    extra = [item for extra in table.extra if extra.meets_phase(name, tier) for item in extra.overrides]
    merged = merge(table.base, tier_of(table, tier).base, table.phases[name], extra, ["seed={seed}"])
    cell = "cell:" + " ".join(_worded(_filled(item, table, tier, seed)) for item in merged)
    # As Hydra reads quoted values: backslashes count double before a quote only.
    return f"{key}='" + re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", cell) + "'"


def _worded(text: str) -> str:
    """A word for shlex, in quotes only where it has to be."""
    return shlex.quote(text) if re.search(r"[\s'\"\\]", text) else text


def rings(table: Table) -> list[str]:
    """Phases that would start from themselves."""
    needs = {
        name: {
            found[1]
            for items in (own, *(extra.overrides for extra in table.extra if name in (extra.phases or ())))
            for item in items
            if (found := PHASE.fullmatch(item.partition("=")[2]))
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
