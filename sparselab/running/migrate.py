"""Runs of an older sparselab, brought to today's names: records rewritten, folders called by the new ids [no torch]."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselab.core.errors import ConfigError, Issue, RunFailed, refuse
from sparselab.core.memo import sharing
from sparselab.running.cell_ids import Needed, identity_of
from sparselab.storage import atomic, checkpoints
from sparselab.storage import record as records
from sparselab.storage.atomic import shown
from sparselab.storage.ids import cell_id
from sparselab.storage.migrations import Traced, former_id, migrated

LEASE = "lease.json"  # of a cell that runs (sparselab.experiments.sweeps.lease)
CHECKPOINTS = "checkpoints"
Say = Callable[[str], None]


class Lineage:
    """The ids of cells, today's and those of an older layout; each cell is read once.

    search_path: a user's folder of config groups, whose members cells may name.
    """

    def __init__(self, search_path: str | None = None) -> None:
        self.search_path = search_path
        self._known: dict[tuple[int, tuple[str, ...]], Traced] = {}

    def trace(self, overrides: Sequence[str], schema: int) -> Traced:
        """The ids of the cell of ``overrides`` (with today's names). ConfigError where it cannot be planned here."""
        key = schema, tuple(overrides)
        if key not in self._known:
            self._known[key] = self._traced(key[1], schema)
        return self._known[key]

    def _traced(self, overrides: tuple[str, ...], schema: int) -> Traced:
        needed: list[Needed] = []
        identity = identity_of(list(overrides), needed, self.search_path)
        before = {cell.id: self.trace((*cell.how, *cell.own), schema).former for cell in needed}
        former = former_id(identity, before, schema)
        return Traced(cell_id(*identity), former, {old: new for new, old in before.items()})


@dataclass
class Count:
    """The outcome of a migration. current: records that had today's layout. left: those that could not be brought to it."""

    current: int = 0
    rewritten: int = 0
    renamed: int = 0
    left: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.current + other.current,
            self.rewritten + other.rewritten,
            self.renamed + other.renamed,
            self.left + other.left,
        )

    def __str__(self) -> str:
        said = f"{self.rewritten:,} records rewritten, {self.renamed:,} of them under a new id"
        return said + f"; {self.current:,} were current; {self.left:,} left as they are"


def runs(folder: Path, lineage: Lineage, say: Say, outdated: bool = False) -> Count:
    """Migrate every run in ``folder``. A line to ``say`` for each record that is left as it is. Raises RunFailed.

    A folder gets its new name first, then its new record: a process that dies in between leaves a folder that is found and
    finished by the next one. What is current is not touched. outdated: as in :func:`sparselab.storage.migrations.migrated`.
    """
    count = Count()
    with sharing():
        for path in sorted(folder.glob(f"*/{records.NAME}")):
            try:
                count += _run(path.parent, lineage, outdated)
            except ConfigError as refused:
                count.left += 1
                say(str(refused.issues[0]))
            except OSError as error:
                raise RunFailed(f"{shown(path)}: cannot be written ({error.strerror}) — make it writable") from None
    return count


def _run(run: Path, lineage: Lineage, outdated: bool) -> Count:
    where = shown(records.path_of(run))
    old = load(records.path_of(run), where)
    new = migrated(old, where, lineage.trace, outdated)
    if new["schema"] == old["schema"]:
        return Count(current=1)
    if (run / LEASE).exists():
        refuse(where, f"its cell runs, or ran when its machine stopped ({LEASE})", "stop it, or remove the file")
    beside = {path: _conflict(path, lineage, outdated) for path in records.conflicts(run)}
    target = run.with_name(new["id"]) if run.name == old["id"] else run
    if target != run:
        if target.exists():
            refuse(where, f"its cell is {new['id']} today, and that is there already", "keep one of the two folders")
        atomic.FILES.rename(run, target)
        atomic.FILES.sync_folder(target.parent)
    checkpoints.hand_over(target / CHECKPOINTS, old["id"], new["id"])
    for path, other in beside.items():
        name = f"record-{records.result_hash(other)[:12]}.json"
        atomic.write_bytes(target / name, atomic.render(other))
        if name != path.name:
            atomic.FILES.unlink(target / path.name)
    records.write(target, new)
    return Count(rewritten=1, renamed=int(new["id"] != old["id"]))


def _conflict(path: Path, lineage: Lineage, outdated: bool) -> dict[str, Any]:
    where = shown(path)
    return migrated(load(path, where), where, lineage.trace, outdated)


def load(path: Path, where: str) -> Any:
    """JSON of a file of at most the size of a record. ConfigError where it is none."""
    try:
        if path.stat().st_size > records.LIMIT:
            refuse(where, f"larger than any record ({records.LIMIT:,} bytes)", "remove it")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError([Issue(where, f"cannot be read ({error.strerror})", "make it readable")]) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            [Issue(where, "corrupt or half-written record", "restore the file, or run the cell again")]
        ) from None
