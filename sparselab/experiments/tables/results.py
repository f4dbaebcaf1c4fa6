"""Records of a table: found in a runs folder, kept under ``results/``, and checked against what is rendered from them.

``results/<paper>/<tier>/[<table>/]`` holds ``records.jsonl``: one line per cell, in the table's order, with the cell's
place, its overrides and its whole record. Everything beside it is rendered from that file and from the table alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparselab.config.cell_ref import canonical
from sparselab.config.members import CONFIGS
from sparselab.config.schema import UNIDENTIFIED
from sparselab.core.errors import ConfigError, RunFailed, refuse
from sparselab.core.memo import sharing
from sparselab.experiments.tables.entries import RECORDS, Entry, folder
from sparselab.experiments.tables.grid import Cell, expand, merge
from sparselab.experiments.tables.load import load_all, papers
from sparselab.experiments.tables.run_index import RunIndex, light
from sparselab.experiments.tables.schema import Table

LEDGER = "README.md"
CellId = Callable[[list[str]], str]


def collect(
    runs_dir: Path,
    table: Table,
    tier: str,
    cell_id: CellId | None = None,
    warn: Callable[[str], None] = lambda line: None,
    run_index: RunIndex | None = None,
    search_path: str | None = None,
) -> list[Entry]:
    """The records that ``runs_dir`` holds of this table's cells, in the table's order.

    ``cell_id(overrides)`` names a cell's folder; the default is :func:`sparselab.running.cell_ids.cell_id_of`. A corrupt
    record, or one of a newer schema, is passed over with a line to ``warn`` and its cell counts as not run; so is a
    cell that cannot be planned here (its data set is missing, say). With a ``run_index`` of the folder its records are
    taken, and cells of which it holds none are not looked for. ``search_path``: a user's folder of
    config groups, whose members cells may name.
    """
    from sparselab.storage import record

    if not runs_dir.is_dir():
        return []
    found = []
    name = cell_id or _cell_id(search_path)
    complaints: dict[str, None] = {}
    with sharing():
        for cell in expand(table, tier):
            if run_index is not None and not run_index.may_hold(cell):
                continue
            try:
                run = runs_dir / name(list(cell.overrides))
                one = record.glance(run, run.name) if run_index is None else run_index.record(run.name)
                if one is None and record.path_of(run).exists():
                    one = record.read(run, run.name)
                if one is not None:
                    found.append(Entry(cell, one))
            except ConfigError as refused:
                complaints |= dict.fromkeys(map(str, refused.issues))
    for line in complaints:
        warn(line)
    return found


def _cell_id(search_path: str | None) -> CellId:
    from sparselab.running.cell_ids import cell_id_of

    return lambda overrides: cell_id_of(overrides, search_path)


def read(results_dir: Path, table: Table, tier: str, warn: Callable[[str], None] = lambda line: None) -> list[Entry]:
    """The entries of ``records.jsonl``, in the table's order, without those of cells that the table no longer has.

    A line to ``warn`` says how many those are. ConfigError for a line that is no record, or one that was changed.
    """
    path = folder(results_dir, table, tier) / RECORDS
    where = path.relative_to(results_dir).as_posix()
    kept = {(e.cell.place, e.cell.seed): e for e in _lines(path, where, results_dir)}
    found = []
    for cell in expand(table, tier):
        entry = kept.get((cell.place, cell.seed))
        if entry is not None and same_cell(entry.cell.overrides, cell.overrides):
            found.append(Entry(cell, entry.record, entry.cell.overrides))
    if strange := len(kept) - len(found):
        warn(f"{where}: {strange} of {len(kept)} records are of cells that the table does not have: not shown")
    return found


def gather(results_dir: Path, runs_dir: Path | None, table: Table, tier: str, **options: Any) -> list[Entry]:
    """Return the entries in the runs folder, and for other cells those kept under ``results_dir``."""
    warn = options.get("warn", lambda line: None)
    entries = {entry.cell: entry for entry in read(results_dir, table, tier, warn)}
    if runs_dir is not None:
        for entry in collect(runs_dir, table, tier, **options):
            if entry.finished or entry.cell not in entries:
                entries[entry.cell] = entry
    return [entries[cell] for cell in expand(table, tier) if cell in entries]


def same_cell(one: Iterable[str], other: Iterable[str]) -> bool:
    """True if two lists of overrides ask for the same, apart from what never changes a result, in whichever words."""
    one, other = tuple(one), tuple(other)
    if one == other:
        return True
    one, other = _identity(one), _identity(other)
    return one == other or frozenset(map(canonical, one)) == frozenset(map(canonical, other))


def _identity(overrides: Iterable[str]) -> frozenset[str]:
    dropped = tuple(f"{key}{end}" for key in UNIDENTIFIED for end in "=.")
    return frozenset(item for item in merge(overrides) if not item.startswith(dropped))


def _lines(path: Path, where: str, results_dir: Path) -> Iterator[Entry]:
    from sparselab.storage import record
    from sparselab.storage.atomic import shown

    if not path.exists():
        return
    if not path.is_file():
        refuse(where, "is not a file", "remove it, and write the results again (sparselab table ... write=true)")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                item = json.loads(line)
                cell = Cell(item["row"], item["column"], item["seed"], tuple(item["overrides"]))
                if not isinstance(item["record"], dict) or type(item["record"]["schema"]) is not int:
                    raise TypeError
                sound = record.unchanged(item["record"]) or record.unchanged(record.plainly(line)["record"])
            except (ValueError, TypeError, KeyError):
                refuse(
                    f"{where}:{number}",
                    "is not a record of a table",
                    "write the results again (sparselab table ... write=true)",
                )
            if not sound:
                problem = f"the record of cell {shown(item['record'].get('id'), 16)} was changed: its seal does not fit"
                refuse(f"{where}:{number}", problem, "restore the file (git checkout)")
            if (schema := item["record"]["schema"]) < record.SCHEMA:
                raise ConfigError([record.older(f"{where}:{number}", schema, results_dir)])
            yield Entry(cell, item["record"])


def dump(entries: Iterable[Entry]) -> str:
    """The text of ``records.jsonl``."""
    return "".join(
        json.dumps(
            {
                "row": entry.cell.row,
                "column": entry.cell.column,
                "seed": entry.cell.seed,
                "overrides": list(entry.words or entry.cell.overrides),
                "record": entry.record,
            },
            sort_keys=True,
            ensure_ascii=False,
            separators=(",", ":"),
        )
        + "\n"
        for entry in entries
    )


def rendered(table: Table, tier: str, entries: list[Entry]) -> dict[str, bytes]:
    """File name to bytes of all that is written for a table."""
    from sparselab.experiments.tables.figure import figure_svg
    from sparselab.experiments.tables.render import to_csv, to_markdown
    from sparselab.experiments.tables.summary import summarise

    summary = summarise(table, tier, entries)
    texts = {RECORDS: dump(entries), "table.md": to_markdown(summary), "table.csv": to_csv(summary)}
    return {name: text.encode() for name, text in texts.items()} | {"figure.svg": figure_svg(summary)}


def write(
    results_dir: Path,
    table: Table,
    tier: str,
    entries: list[Entry],
    configs: Path = CONFIGS,
    runs_dir: Path | None = None,
    search_path: str | None = None,
) -> list[Path]:
    """Write a table's files and the ledger; returns their paths. Raises :class:`RunFailed` where it cannot.

    Pictures that the table names are brought from ``runs_dir``. search_path: a user's folder, whose tables are in the ledger.
    """
    from sparselab.experiments.tables.pictures import bring
    from sparselab.storage import atomic

    here = folder(results_dir, table, tier)
    try:
        here.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(
            f"results_dir={results_dir}: cannot be written ({error.strerror}) — choose another folder"
        ) from None
    files = {here / name: data for name, data in rendered(table, tier, entries).items()}
    files |= bring(table, entries, here, runs_dir)
    for path, data in files.items():
        if not _is(path, data):
            atomic.write_bytes(path, data)
    atomic.write_bytes(results_dir / LEDGER, ledger_text(results_dir, configs, search_path).encode())
    return [*files, results_dir / LEDGER]


def _is(path: Path, data: bytes) -> bool:
    """True for a file that holds ``data``, or a picture that shows what ``data`` shows."""
    from sparselab.experiments.tables.picture import same_picture

    if not path.is_file():
        return False
    there = path.read_bytes()
    return same_picture(there, data) if path.suffix == ".svg" else there == data


def ledger_text(results_dir: Path, configs: Path = CONFIGS, search_path: str | None = None) -> str:
    """The bytes of ``results/README.md`` as the records under ``results_dir`` give them."""
    from sparselab.experiments.tables.ledger import to_markdown

    return to_markdown(ledger(results_dir, configs=configs, search_path=search_path))


def ledger(
    results_dir: Path,
    runs_dir: Path | None = None,
    configs: Path = CONFIGS,
    search_path: str | None = None,
    **options: Any,
) -> list[Any]:
    """A summary for every table and tier, in the order of their names; those without a record included.

    Where a user names a folder (``search_path``), the project's own tables without a record are left out.
    """
    from sparselab.experiments.tables.summary import summarise

    if runs_dir is not None:
        options["run_index"] = RunIndex(runs_dir)
    if "warn" in options:
        options["warn"] = lru_cache(maxsize=None)(options["warn"])  # what several tables complain of is said once
    with sharing():
        left_out = papers(configs) if search_path is not None else []
        return [
            summarise(table, tier, [Entry(entry.cell, light(entry.record)) for entry in entries])
            for table in load_all(configs, search_path)
            for tier in table.tiers
            for entries in [gather(results_dir, runs_dir, table, tier, search_path=search_path, **options)]
            if entries or table.paper not in left_out
        ]


def stale(results_dir: Path, configs: Path = CONFIGS) -> list[str]:
    """One line for each file under ``results_dir`` that is not what the records give; empty when all is well.

    Records that cannot be read stop the search: their lines are all that is returned.
    """
    from sparselab.experiments.tables.pictures import issues

    found = []
    known: set[Path] = set()
    for table in load_all(configs):
        for tier in table.tiers:
            here = folder(results_dir, table, tier)
            known.add(here / RECORDS)
            if not (here / RECORDS).is_file():
                continue
            try:
                entries = read(results_dir, table, tier)
            except ConfigError as refused:
                return list(map(str, refused.issues))
            for name, data in rendered(table, tier, entries).items():
                path = here / name
                if not _is(path, data):
                    problem = "differs from what the records give" if path.is_file() else "is missing"
                    again = f"sparselab table {table.label} tier={tier} write=true"
                    found.append(f"{path.relative_to(results_dir)}: {problem} — run {again}")
            for path, problem in issues(table, entries, here).items():
                found.append(f"{path.relative_to(results_dir)}: {problem} — delete it, and run the cell again")
    found += [
        f"{path.relative_to(results_dir)}: belongs to no table — delete it"
        for path in sorted(results_dir.rglob(RECORDS))
        if path not in known
    ]
    ledger_path = results_dir / LEDGER
    if not ledger_path.is_file() or ledger_path.read_text(encoding="utf-8") != ledger_text(results_dir, configs):
        found.append(f"{LEDGER}: differs from what the records give — run sparselab list write=true")
    return found
