"""The sections of the report, kept between reports: what nothing changed is neither read, judged nor drawn again.

A section is a function of the code, the table's file, the tier, the kept records' bytes and the bytes of those records of the
runs folder that are its cells' (:mod:`sparselab.experiments.tables.roster` has their names). The hash of all of these is its
key. A table that shows pictures, one with a record that cannot be read, and everything beside a user's own folder of configs
or beside plug-ins is made anew each time. One file in the cache folder holds what one report of these folders left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparselab.config.members import CONFIGS
from sparselab.core import cache_folder
from sparselab.core.errors import ConfigError, Issue
from sparselab.core.memo import sharing
from sparselab.experiments.tables import ledger, results
from sparselab.experiments.tables.entries import RECORDS, Entry
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import TableFile, load_file, papers, table_files
from sparselab.experiments.tables.report import Find, Section, nowhere, section
from sparselab.experiments.tables.roster import Found, Roster
from sparselab.experiments.tables.run_index import RunIndex, light
from sparselab.experiments.tables.schema import Table
from sparselab.experiments.tables.summary import summarise
from sparselab.running.cell_ids import cell_id_of
from sparselab.running.circumstances import circumstances, code
from sparselab.storage import record as records

FOLDER = Path("reports")
_PARTS = ("runs", "tables", "rosters", "sections")
DAYS = 30  # after which what is kept of other folders is dropped


def sections(
    results_dir: Path,
    runs_dir: Path | None = None,
    find: Find = nowhere,
    configs: Path = CONFIGS,
    search_path: str | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Section]:
    """A section for every table and tier, in the order of their names; those without a record included.

    Where a user names a folder (``search_path``), the project's own tables without a record are left out.
    """
    warn = lru_cache(maxsize=None)(warn)  # what several tables complain of is said once
    with sharing():
        kept = _Kept.opened(results_dir, runs_dir, configs, search_path)
        index = None if runs_dir is None else RunIndex(runs_dir, kept.runs)
        if index is not None and index.empty:  # then no cell need be named
            index = runs_dir = None
        work = _Work(results_dir, runs_dir, index, kept, find, search_path, warn)
        files = table_files(configs, search_path)
        tiers = {file: work.tiers(file) for file in files}
        work.loaded()
        left_out = set(papers(configs)) if search_path is not None else set()
        found = [
            made for file in files for tier in tiers[file] for made in [work.section(file, tier)]
            if made.row.seen or file.slug not in left_out
        ]  # fmt: skip
        kept.close(index)
    return found


@dataclass
class _Kept:
    """The things that an earlier report of the same folders left, and those that this one leaves.

    runs: of the index. tables: tiers by the file's bytes. rosters and sections by their keys. state: the circumstances under
    which rosters hold; None where nothing may be kept.
    """

    path: Path
    code: str
    state: str | None
    old: dict[str, Any]
    new: dict[str, dict[str, Any]] = field(default_factory=lambda: {part: {} for part in _PARTS})
    changed: bool = False

    @classmethod
    def opened(cls, results_dir: Path, runs_dir: Path | None, configs: Path, search_path: str | None) -> _Kept:
        places = json.dumps([str(place and place.absolute()) for place in (results_dir, runs_dir, configs)])
        path = FOLDER / f"{hashlib.sha256(places.encode(errors='surrogatepass')).hexdigest()[:32]}.json"
        state = None
        with contextlib.suppress(OSError):
            state = circumstances(search_path, configs)
        known = code(configs) if state is not None else ""
        old: dict[str, Any] = {part: {} for part in _PARTS}
        if state is not None and isinstance(there := cache_folder.read(path), dict) and there.get("code") == known:
            old = there
        if old.get("state") != state:
            old = {**old, "rosters": {}}
        return cls(path, known, state, old)

    @property
    def runs(self) -> dict[str, list[Any]]:
        runs: dict[str, list[Any]] = self.old["runs"]
        return runs

    def get(self, part: str, key: str) -> Any:
        """The value that was kept, which is then kept on."""
        if self.state is None or (there := self.old[part].get(key)) is None:
            return None
        self.new[part][key] = there
        return there

    def put(self, part: str, key: str, value: Any) -> None:
        """Keep a value that JSON holds."""
        if self.state is not None:
            self.new[part][key] = value
            self.changed = True

    def drop(self, part: str, key: str) -> None:
        self.new[part].pop(key, None)

    def close(self, index: RunIndex | None) -> None:
        """Write what is new."""
        if self.state is None:
            return
        self.new["runs"] = index.known if index is not None else {}
        other = any(self.new[part].keys() != self.old[part].keys() for part in _PARTS)
        if self.changed or other or self.old.get("state") != self.state:
            body = {"code": self.code, "state": self.state, **self.new}
            with contextlib.suppress(*cache_folder.MISHAPS):
                _drop_old(cache_folder.cache_folder() / FOLDER)
            cache_folder.write(self.path, body)


@dataclass
class _Work:
    """One report under way."""

    results_dir: Path
    runs_dir: Path | None
    index: RunIndex | None
    kept: _Kept
    find: Find
    search_path: str | None
    warn: Callable[[str], None]
    digests: dict[TableFile, str] = field(default_factory=dict)
    tables: dict[TableFile, Table] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def tiers(self, file: TableFile) -> list[str]:
        """The tiers of a table that has no fault; else none, and :meth:`loaded` says why."""
        try:
            self.digests[file] = _digest(f"{file.slug}/{file.name}".encode(), file.path.read_bytes())
        except OSError:
            self.digests[file] = ""  # loading says what is wrong
        tiers: list[str] | None = self.kept.get("tables", self.digests[file])
        if tiers is None:
            try:
                table = self.table(file)
            except ConfigError as refused:
                self.issues += refused.issues
                return []
            tiers = [] if table.pictures else list(table.tiers)  # tables with pictures are read each time
            self.kept.put("tables", self.digests[file], tiers)
        return tiers or list(self.table(file).tiers)

    def loaded(self) -> None:
        """ConfigError with the faults of all tables."""
        if self.issues:
            raise ConfigError(self.issues)

    def table(self, file: TableFile) -> Table:
        if file not in self.tables:
            self.tables[file] = load_file(file)
        return self.tables[file]

    def section(self, file: TableFile, tier: str) -> Section:
        """The section of a table at a tier."""
        names = self.names(file, tier)
        key = self.key(file, tier, names)
        if key is not None and (there := self.kept.get("sections", key)) is not None:
            for line in there["warned"]:
                self.warn(line)
            return Section(**{**there["section"], "row": ledger.Row(**there["section"]["row"])})
        warned: list[str] = []
        made = self.made(file, tier, names, warned.append)
        for line in warned:
            self.warn(line)
        if key is not None:
            self.kept.put("sections", key, {"section": asdict(made), "warned": warned})
        return made

    def names(self, file: TableFile, tier: str) -> Found | None:
        """The names of the cells that the runs folder may hold; None where there is no such folder."""
        if self.index is None:
            return None
        at = _digest(self.digests[file].encode(), tier.encode())
        kept = self.kept.get("rosters", at)
        roster = Roster.of_json(kept) if kept is not None else None
        if roster is None or roster.local():
            roster = Roster.made(expand(self.table(file), tier))
        found = roster.named(
            self.index, lambda: expand(self.table(file), tier), lambda words: cell_id_of(words, self.search_path)
        )
        if roster.local():
            self.kept.drop("rosters", at)
        elif roster.changed:
            self.kept.put("rosters", at, roster.json())
        return found

    def key(self, file: TableFile, tier: str, names: Found | None) -> str | None:
        """The hash of all that the section is a function of; None where it is not to be kept."""
        if self.kept.state is None or (file in self.tables and self.tables[file].pictures):
            return None
        path = results.folder(self.results_dir, file, tier) / RECORDS
        try:
            kept = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        except OSError:
            return None
        ran: list[list[Any]] = []
        if names is not None and self.index is not None:
            for number, id in names.ids.items():
                if id in self.index.digests:
                    ran.append([number, self.index.digests[id]])
                elif self.index.unknown or records.path_of(self.index.runs_dir / id).exists():
                    return None
        told = [self.digests[file], tier, kept, ran, names and names.complaints]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def made(self, file: TableFile, tier: str, names: Found | None, warn: Callable[[str], None]) -> Section:
        """The section from its records."""
        table = self.table(file)
        cells = {cell.overrides: number for number, cell in enumerate(expand(table, tier))} if names else {}

        def name(overrides: list[str]) -> str:
            assert names is not None
            if (id := names.ids.get(cells[tuple(overrides)])) is None:
                return cell_id_of(overrides, self.search_path)  # it was refused, and says why again
            return id

        entries = results.gather(
            self.results_dir, self.runs_dir, table, tier, warn=warn, run_index=self.index, cell_id=name,
            search_path=self.search_path,
        )  # fmt: skip
        return section(summarise(table, tier, [Entry(e.cell, light(e.record)) for e in entries]), self.find)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _drop_old(folder: Path) -> None:
    """Remove what reports of other folders left more than a month ago."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stat().st_mtime < time.time() - DAYS * 86_400:
            path.unlink(missing_ok=True)


__all__ = ["sections"]
