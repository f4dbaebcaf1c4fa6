"""What a runs folder may hold of a cell, told without planning the cell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from sparselab.spec.schema import UNIDENTIFIED
from sparselab.tables.grid import Cell
from sparselab.tables.schema import CONFIGS

SEED = re.compile(r"seed=(\d+)")
CHOICE = re.compile(r"([a-z_]+)=([\w/-]+)", re.ASCII)

Names = frozenset[tuple[str, str]]


class Shelf:
    """The records of a runs folder by seed and by the plug-ins that they ran with.

    Planning names a cell's folder exactly and takes milliseconds; a report asks for the cells of all tables, of which
    a folder holds few. :meth:`may_hold` only ever says no where no plan could lead to one of the records.
    """

    def __init__(self, runs_dir: Path) -> None:
        self.kinds: dict[Names, set[int]] = {}  # plug-ins by group -> seeds
        self.unknown = False  # a record that cannot be read may be any cell's
        for folder in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []:
            self._put(folder)

    def _put(self, folder: Path) -> None:
        from sparselab.store import record

        try:
            if not record.path_of(folder).exists():
                return
        except OSError:  # a folder that is not ours to look into
            self.unknown = True
            return
        found = record.glance(folder, folder.name)
        if found is None or not isinstance(seed := found["config"].get("seed"), int):
            self.unknown = True
            return
        groups = {key: group for key, group in found["config"].items() if isinstance(group, dict) and "name" in group}
        self.kinds.setdefault(frozenset((key, group["name"]) for key, group in groups.items()), set()).add(seed)

    def may_hold(self, cell: Cell) -> bool:
        """Whether one of the records may be the cell's."""
        names, seed = facts(cell.overrides)
        return self.unknown or any(
            (seed is None or seed in seeds) and names <= kind  # a group that is not there is one its engine refuses
            for kind, seeds in self.kinds.items()
        )


def facts(overrides: Iterable[str]) -> tuple[Names, int | None]:
    """(plug-ins by group, the seed) that overrides ask for, as far as their words say it."""
    names: dict[str, str] = {}
    seed = None
    for text in overrides:
        if found := SEED.fullmatch(text):
            seed = int(found[1])
        elif (found := CHOICE.fullmatch(text)) and found[1] not in UNIDENTIFIED:
            names[found[1]] = plugin(found[1], found[2]) or ""
    return frozenset(item for item in names.items() if item[1]), seed


@lru_cache(maxsize=1024)
def plugin(group: str, member: str, configs: Path = CONFIGS) -> str | None:
    """The name that a member's own file gives; None where it says none, or there is no such file."""
    path = configs / group / f"{member}.yaml"
    if not path.is_file():
        return None
    found = re.search(r"^name: (\w+)$", path.read_text(), re.MULTILINE)
    return found[1] if found else None


__all__ = ["Shelf", "facts", "plugin"]
