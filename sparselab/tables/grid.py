"""From a table to its cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparselab.spec.faults import did_you_mean, refuse

if TYPE_CHECKING:
    from sparselab.tables.schema import Table, Tier


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
    """The tier of that name; Refused with the nearest one where there is none."""
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
    another one for each.
    """
    spec = tier_of(table, tier)
    cells = []
    for row, column in places(table, tier):
        extra = [item for extra in table.extra if extra.meets(row, column, tier) for item in extra.overrides]
        overrides = (table.base, spec.base, table.rows[row], table.columns[column], extra)
        for seed in spec.seeds:
            own = (text.replace("{seed}", str(seed)) for text in merge(*overrides, ["seed={seed}"]))
            cells.append(Cell(row, column, seed, tuple(own)))
    return cells
