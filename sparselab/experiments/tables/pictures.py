"""Pictures that cells made, beside a table: ``pictures/<id>.png``, of the cells that the table names.

A cell writes a picture into its run's folder, and its record has the picture's hash. The table's writer brings those of each
named cell's first seed along; what lies beside a table is believed where its hash fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.schema import Table

FOLDER = "pictures"
END = ".png"


@dataclass(frozen=True)
class Picture:
    """A picture of a record. source: its name in the run's folder. name: beside the table. sha256: of its bytes."""

    entry: Entry
    source: str
    name: str
    sha256: str

    @property
    def caption(self) -> str:
        cell = self.entry.cell
        return f"{cell.row} · {cell.column} (seed {cell.seed})"

    def sound(self, path: Path) -> bytes | None:
        """The bytes of ``path`` where they are the picture's."""
        data = path.read_bytes() if path.is_file() else b""
        return data if hashlib.sha256(data).hexdigest() == self.sha256 else None


def pictures(table: Table, entries: Sequence[Entry]) -> list[Picture]:
    """The pictures that belong beside the table, in its order: of each named cell, those of its first record."""
    asked = table.pictures
    if asked is None:
        return []
    seen: set[tuple[str, str]] = set()
    found = []
    for entry in entries:
        row, column = entry.cell.place
        named = (asked.rows is None or row in asked.rows) and (asked.columns is None or column in asked.columns)
        if named and entry.finished and (row, column) not in seen:
            seen.add((row, column))
            found += list(_of(entry))
    return found


def _of(entry: Entry) -> Iterator[Picture]:
    files = entry.record.get("files")
    for source, facts in sorted(files.items()) if isinstance(files, dict) else ():
        if source.endswith(END) and "/" not in source and isinstance(facts, dict):
            name = f"{entry.id}-{source}"
            yield Picture(entry, source, f"{FOLDER}/{name}", str(facts.get("sha256")))


def bring(table: Table, entries: Sequence[Entry], here: Path, runs_dir: Path | None) -> dict[Path, bytes]:
    """Path to bytes of the pictures that ``here`` lacks and the runs folder has."""
    found = {}
    for picture in pictures(table, entries):
        if picture.sound(here / picture.name) is None and runs_dir is not None:
            data = picture.sound(runs_dir / picture.entry.id / picture.source)
            if data is not None:
                found[here / picture.name] = data
    return found


def issues(table: Table, entries: Sequence[Entry], here: Path) -> dict[Path, str]:
    """Return the problems of the pictures under ``here``, by path."""
    wanted = {here / picture.name: picture for picture in pictures(table, entries)}
    found = {
        path: "is not the picture that the record names" if path.is_file() else "is missing"
        for path, picture in wanted.items()
        if picture.sound(path) is None
    }
    strange = [path for path in sorted((here / FOLDER).glob("*")) if path not in wanted]
    return found | dict.fromkeys(strange, "belongs to no record of the table")
