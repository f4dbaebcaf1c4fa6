"""A cell of a table with its record, and the folder where a table's results lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparselab.config.cell_ref import TEXT
from sparselab.experiments.tables.grid import Cell

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Entry:
    """A cell and its record. words: the cell's overrides as they stood in its table when the record was kept."""

    cell: Cell
    record: dict[str, Any]
    words: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        return str(self.record.get("id", ""))

    def number(self, *keys: str) -> float | None:
        """A number inside the record; None where there is none."""
        value: Any = self.record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def continues(self) -> bool:
        """True if other cells trained something before it that it stands on: its own cost is not all that it took."""
        own, whole = self.number("times", "steps"), self.number("times", "lineage_steps")
        if own is not None and whole is not None:
            return whole > own
        return any(TEXT in text for text in self.cell.overrides)  # of records from before lineages were counted

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished"


class Placed(Protocol):
    """A table, or the file of one: its paper, and its own name, "" for the paper's first."""

    @property
    def paper(self) -> str: ...

    @property
    def name(self) -> str: ...


def folder(results_dir: Path, table: Placed, tier: str) -> Path:
    """Return the folder of a table's results."""
    return results_dir / table.paper / tier / table.name if table.name else results_dir / table.paper / tier
