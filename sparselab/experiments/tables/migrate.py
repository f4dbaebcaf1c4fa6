"""Kept results of an older sparselab, brought to today's names: each ``records.jsonl`` rewritten at once, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from sparselab.core.errors import ConfigError, refuse
from sparselab.core.memo import sharing
from sparselab.experiments.tables.entries import RECORDS, Entry
from sparselab.experiments.tables.grid import Cell
from sparselab.experiments.tables.pictures import FOLDER
from sparselab.experiments.tables.results import dump
from sparselab.running.migrate import Count, Lineage, Say
from sparselab.storage import atomic
from sparselab.storage.migrations import migrated, override

__all__ = ["results"]


def results(folder: Path, lineage: Lineage, say: Say, outdated: bool = False) -> Count:
    """Migrate every ``records.jsonl`` under ``folder``. A line to ``say`` for each record that is left as it is.

    Raises RunFailed where a file cannot be written. What is rendered from the records is not touched: `sparselab table …
    write=true` renders it again. outdated: as in :func:`sparselab.storage.migrations.migrated`.
    """
    count = Count()
    with sharing():
        for path in sorted(folder.rglob(RECORDS)):
            try:
                count += _file(path, path.relative_to(folder).as_posix(), lineage, say, outdated)
            except ConfigError as refused:
                say(str(refused.issues[0]))
                count.left += 1
    return count


def _file(path: Path, where: str, lineage: Lineage, say: Say, outdated: bool) -> Count:
    count, entries, ids = Count(), [], {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        at = f"{where}:{number}"
        try:
            item = json.loads(line)
            overrides, old = list(map(str, item["overrides"])), item["record"]
            cell = Cell(item["row"], item["column"], item["seed"], ())
        except (ValueError, TypeError, KeyError, RecursionError):
            refuse(at, "is not a record of a table", "restore the file (git checkout)")
        try:
            new = migrated(old, at, lineage.trace, outdated)
        except ConfigError as refused:
            say(str(refused.issues[0]))
            count.left += 1
            new = old
        else:
            count += Count(rewritten=1) if new["schema"] != old["schema"] else Count(current=1)
            overrides = [override(text, old["schema"]) for text in overrides]
        if new["id"] != old["id"]:
            count.renamed += 1
            ids[old["id"]] = new["id"]
        entries.append(Entry(Cell(cell.row, cell.column, cell.seed, tuple(overrides)), new))
    for old, new in ids.items():
        for picture in sorted((path.parent / FOLDER).glob(f"{old}-*")):
            atomic.FILES.rename(picture, picture.with_name(new + picture.name.removeprefix(old)))
    if count.rewritten:
        atomic.write_bytes(path, dump(entries).encode())
    return count
