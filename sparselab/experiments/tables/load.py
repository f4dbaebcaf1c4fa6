"""Reads the tables of ``configs/paper/``, and those of a user's folder, and checks each against itself.

Checked are names, tiers, published numbers, cells and claims.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselab.config.members import CONFIGS, outer_folders
from sparselab.config.schema import identified_metric, identified_option
from sparselab.config.user_configs import scan
from sparselab.core.errors import ConfigError, Issue, Issues, did_you_mean, refuse
from sparselab.core.memo import sharing
from sparselab.core.options import validate
from sparselab.core.sparsity import Sparsity
from sparselab.experiments.tables.claims import CLAIMS, Claim
from sparselab.experiments.tables.grid import excluded, expand, layout, phases_in, rings
from sparselab.experiments.tables.schema import CLAIM_NAME, TIERS, Axis, Table
from sparselab.experiments.tables.yamlfile import read_yaml

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_OVERRIDE = re.compile(r"\+?[A-Za-z_][\w./]*=[^\n\r]*")


@dataclass(frozen=True)
class TableFile:
    """A file of tables. root: the folder of config groups that it lies in. name: of the table, "" for the paper's first."""

    root: Path
    path: Path
    slug: str
    name: str = ""

    @property
    def paper(self) -> str:
        return self.slug

    @property
    def output(self) -> str:
        return f"{self.slug}/{self.name}" if self.name else self.slug

    def __str__(self) -> str:
        return f"{self.root.absolute().name}/{self.path.relative_to(self.root).as_posix()}"


RENAMED = {"beside": "extra_columns"}
"""Keys of a table that were renamed, each old one with the new one."""


def papers(configs: Path = CONFIGS, search_path: str | None = None) -> list[str]:
    """The slugs of all papers that have a table, sorted. search_path: a user's folder of config groups."""
    return sorted({file.slug for file in _files(configs, search_path)})


def load(paper: str, configs: Path = CONFIGS, search_path: str | None = None) -> list[Table]:
    """All tables of a paper (``<slug>``) or one further table (``<slug>/<table>``); ConfigError with all faults.

    A user's papers lie in ``<search_path>/paper/`` as the project's own do in ``configs/paper/``.
    """
    return _load_paper(paper, _files(configs, search_path))


def load_all(configs: Path = CONFIGS, search_path: str | None = None) -> list[Table]:
    """Every table of every paper."""
    issues = Issues()
    tables: list[Table] = []
    found = _files(configs, search_path)
    for slug in sorted({file.slug for file in found}):
        with issues.collect():
            tables += _load_paper(slug, found)
    issues.raise_if_any()
    return tables


def table_files(configs: Path = CONFIGS, search_path: str | None = None) -> list[TableFile]:
    """The files of all tables, in the order of :func:`load_all`; ConfigError where two of a paper write to one place."""
    issues = Issues()
    found = _files(configs, search_path)
    slugs = sorted({file.slug for file in found})
    for slug in slugs:
        _one_output([file for file in found if file.slug == slug], issues)
    issues.raise_if_any()
    return [file for slug in slugs for file in found if file.slug == slug]


def _load_paper(paper: str, found: list[TableFile]) -> list[Table]:
    slug, _, wanted = paper.partition("/")
    files = [file for file in found if file.slug == slug]
    if not files:
        refuse(f"paper={paper}", "no such paper", did_you_mean(slug, sorted({file.slug for file in found})))
    issues = Issues()
    _one_output(files, issues)
    names = [file.name for file in files]
    if wanted and wanted not in names:
        refuse(f"paper={paper}", f"{slug} has no such table", did_you_mean(wanted, filter(None, names)))
    tables = []
    for file in files:
        if not wanted or file.name == wanted:
            with issues.collect():
                tables.append(load_file(file))
    issues.raise_if_any()
    return tables


def _files(configs: Path, search_path: str | None) -> list[TableFile]:
    """Every file of tables: the project's, those of a user's folder and those of plug-ins."""
    scan(search_path)
    found = []
    for root in [configs, *outer_folders(search_path)]:
        folder = root / "paper"
        found += [TableFile(root, path, path.stem) for path in sorted(folder.glob("*.y*ml"))]
        found += [TableFile(root, path, path.parent.name, path.stem) for path in sorted(folder.glob("*/*.y*ml"))]
    return found


def _one_output(files: list[TableFile], issues: Issues) -> None:
    """Two files may not write to the same results, also where the file system ignores case; nor two folders to one paper."""
    taken: dict[str, TableFile] = {}
    for file in files:
        other = taken.setdefault(file.output.casefold(), file)
        if file.root != files[0].root:
            issues.add(str(file), f"{file.slug} is a paper of another folder ({files[0]})", "give yours another name")
        elif other != file:
            issues.add(str(file), f"claims the output of {other}", "rename or delete one of them")
        if not all(_NAME.fullmatch(word) for word in (file.slug, file.name or "a")):
            issues.add(str(file), "not a name for a table", "use a-z, 0-9 and _ only, like srste.yaml")


def load_file(file: TableFile) -> Table:
    """The table of a file; ConfigError with all its faults."""
    slug, name, path, where = file.slug, file.name, file.path, str(file)
    raw = read_yaml(path, where)
    issues = Issues()
    for key in ("paper", "name"):
        if key in raw:
            issues.add(f"{where} {key}", "is the file's own name", "delete the line")
    for key in RENAMED.keys() & raw.keys():
        issues.add(f"{where} {key}", f"is called {RENAMED[key]} now", f"write {RENAMED[key]}: …")
        raw = {RENAMED[key] if k == key else k: value for k, value in raw.items()}
    with _At(where, issues):
        claims = _claims(raw.get("claims"))
        raw = {**raw, "claims": claims}
    with _At(where, issues):
        shape = {**raw, "claims": [], "paper": slug, "name": name}
        table = validate(Table, shape)
    issues.raise_if_any()
    table = table.model_copy(update={"claims": claims})
    with _At(where, issues), sharing():  # the checks expand the table's tiers again and again
        _check(table)
    issues.raise_if_any()
    return table


class _At:
    """Collects the faults of its block, each with the file's name in front."""

    def __init__(self, where: str, issues: Issues):
        self.where, self.issues = where, issues

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self.issues.found += [Issue(f"{self.where} {f.where}", f.problem, f.fix) for f in error.issues]
        return True


def _claims(raw: Any) -> list[Claim]:
    """The claims, each with its name: of a mapping the keys, of a list C1, C2 and so on."""
    issues = Issues()
    claims: list[Claim] = []
    if not isinstance(raw, dict | list | None):
        refuse("claims", "is no mapping", "write `C1: {kind: ...}`, a name for each claim")
    named = raw.items() if isinstance(raw, dict) else [(f"C{number}", item) for number, item in enumerate(raw or [], 1)]
    for name, item in named:
        with issues.collect():
            if not isinstance(item, dict) or "kind" not in item:
                refuse(f"claims.{name}", "has no kind", did_you_mean("", CLAIMS))
            if not CLAIM_NAME.fullmatch(str(name)):
                refuse(f"claims.{name}", "is no name for a claim", "begin with a letter, then letters, digits and _.-")
            if "id" in item:
                refuse(
                    f"claims.{name}.id", "a claim is named by its key", f"write {item['id']}: {{kind: …}} under claims"
                )
            claims.append(validate(CLAIMS[str(item["kind"])], {**item, "id": str(name)}, f"claims.{name}"))
    issues.raise_if_any()
    return claims


def _check(table: Table) -> None:
    """Everything that the types cannot say, all faults at once."""
    issues = Issues()
    _check_tiers(table, issues)
    _check_names(table, issues)
    _check_published(table, issues)
    _check_metrics(table, issues)
    _check_axis(table, issues)
    _check_overrides(table, issues)
    for name in rings(table):
        issues.add(f"phases.{name}", "starts from itself", "name a phase that does not need it")
    if not issues.found:
        for tier in table.tiers:
            _check_cells(table, tier, issues)
    if not issues.found:
        _check_numbers(table, issues)
    issues.raise_if_any()


def _check_numbers(table: Table, issues: Issues) -> None:
    """Claims along a numeric axis need a number of each of their cells."""
    for claim in table.claims:
        for tier in claim.tiers if claim.tiers is not None else table.tiers:
            lacking = claim.unset(layout(table, tier)) if tier in table.tiers else []
            if lacking:
                where = f"claims.{claim.id} x={getattr(claim, 'x', '')}"
                problem = f"{' · '.join(lacking[0])} does not set it to a number (tier {tier})"
                issues.add(where, problem, "set it in its row or column, or leave it out of the claim")
                break


def _check_tiers(table: Table, issues: Issues) -> None:
    for name, tier in table.tiers.items():
        if name not in TIERS:
            issues.add(f"tiers.{name}", "no such tier", did_you_mean(name, TIERS))
        if len(set(tier.seeds)) < len(tier.seeds):
            issues.add(f"tiers.{name}.seeds={tier.seeds}", "the same seed twice", "write each seed once")


def _check_names(table: Table, issues: Issues) -> None:
    def known(where: str, row: str | None, column: str | None) -> None:
        if row is not None and row not in table.rows:
            issues.add(f"{where} row={row}", "the table has no such row", did_you_mean(row, table.rows))
        if column is not None and column not in table.columns:
            issues.add(f"{where} column={column}", "the table has no such column", did_you_mean(column, table.columns))

    def all_known(where: str, rows: list[str] | None, columns: list[str] | None) -> None:
        for row in rows or []:
            known(where, row, None)
        for column in columns or []:
            known(where, None, column)

    def known_tiers(where: str, tiers: list[str] | None) -> None:
        for tier in tiers or []:
            if tier not in TIERS:
                issues.add(f"{where}.tiers={tier}", "no such tier", did_you_mean(tier, TIERS))

    if table.reference:
        known("reference", table.reference.row, table.reference.column)
        all_known("reference.columns", None, [name for pair in table.reference.columns.items() for name in pair])
    for number, column in enumerate(table.extra_columns, 1):
        if column.to:
            known(f"extra_columns.{number}.to", column.to.row, column.to.column)
    for number, item in enumerate(table.exclude, 1):
        all_known(f"exclude.{number}", item.rows, item.columns)
        if item.rows is None and item.columns is None:
            issues.add(f"exclude.{number}", "excludes every cell", "write rows, columns or both")
    for number, cells in enumerate(table.deterministic, 1):
        all_known(f"deterministic.{number}", cells.rows, cells.columns)
    if table.pictures:
        all_known("pictures", table.pictures.rows, table.pictures.columns)
    if not isinstance(table.axis, str):
        all_known("axis", table.axis.rows, table.axis.columns)
        names = [claim.id for claim in table.claims]
        for name in table.axis.claims:
            if name not in names:
                issues.add(f"axis.claims={name}", "the table has no such claim", did_you_mean(name, names))
    for number, extra in enumerate(table.extra, 1):
        all_known(f"extra.{number}", extra.rows, extra.columns)
        for name in extra.phases or []:
            if name not in table.phases:
                issues.add(
                    f"extra.{number} phase={name}", "the table has no such phase", did_you_mean(name, table.phases)
                )
        if extra.phases is not None and (extra.rows or extra.columns):
            issues.add(f"extra.{number}", "is of phases and of cells", "write phases, or rows and columns")
        known_tiers(f"extra.{number}", extra.tiers)
    for name, tier in table.tiers.items():
        all_known(f"tiers.{name}", tier.rows, tier.columns)
    for claim in table.claims:
        all_known(f"claims.{claim.id}", claim.rows, claim.columns)
        for top in claim.points():
            for point in top.all():
                known(f"claims.{claim.id}", point.row, point.column)
        if claim.presupposes is not None:
            known(f"claims.{claim.id}.presupposes", claim.presupposes.a.row, claim.presupposes.a.column)
        known_tiers(f"claims.{claim.id}", claim.tiers)
        known_tiers(f"claims.{claim.id}.rule1", list(claim.rule1))


def _check_published(table: Table, issues: Issues) -> None:
    seen: set[tuple[str, str]] = set()
    for item in table.published:
        where = f"published ({item.row}, {item.column})"
        if not item.provenance.strip():
            issues.add(
                where,
                f"{item.value:g} has no provenance",
                "write provenance: where it was read (and verified: false if nowhere)",
            )
        if item.row not in table.rows:
            issues.add(where, "the table has no such row", did_you_mean(item.row, table.rows))
        elif item.column not in table.columns:
            issues.add(where, "the table has no such column", did_you_mean(item.column, table.columns))
        elif (reason := excluded(table, item.row, item.column)) is not None:
            issues.add(where, f"the cell is excluded ({reason})", "delete one of the two")
        if (item.row, item.column) in seen:
            issues.add(where, "two published numbers for one cell", "keep the one with the better provenance")
        seen.add((item.row, item.column))


def _check_metrics(table: Table, issues: Issues) -> None:
    read = [("metric.key", table.metric.key)]
    read += [(f"claims.{claim.id}.metric", claim.metric) for claim in table.claims if claim.metric]
    read += [
        (f"extra_columns.{number}.keys", key) for number, item in enumerate(table.extra_columns, 1) for key in item.keys
    ]
    if isinstance(table.axis, Axis) and table.axis.metric:
        read.append(("axis.metric", table.axis.metric))
    for where, key in read:
        if not identified_metric(key):
            problem = "is there only where a run validates, and trainer.evals is no part of an id"
            issues.add(f"{where}={key}", problem, "read one of test. or train.")


def _check_axis(table: Table, issues: Issues) -> None:
    """Names of rows and columns in the figure's axis are names of the table."""
    if isinstance(table.axis, str):
        return
    if bool(table.axis.metric) == bool(table.axis.at):
        issues.add("axis", "takes a metric of the records, or a number at each row (or column)", "write one of the two")
    if table.axis.along is None and table.axis.at:
        issues.add("axis", "does not say what its curves run along", "write along: rows, or along: columns")
        return
    along = table.columns if table.axis.along == "columns" else table.rows
    for name in table.axis.at:
        if name not in along:
            kind = "row" if along is table.rows else "column"
            issues.add(f"axis.at: {name}", f"the table has no such {kind}", did_you_mean(name, along))


def _check_overrides(table: Table, issues: Issues) -> None:
    lists = {"base": table.base}
    lists |= {f"rows.{name}": items for name, items in table.rows.items()}
    lists |= {f"columns.{name}": items for name, items in table.columns.items()}
    lists |= {f"tiers.{name}.base": tier.base for name, tier in table.tiers.items()}
    lists |= {f"phases.{name}": items for name, items in table.phases.items()}
    lists |= {f"extra.{number}": item.overrides for number, item in enumerate(table.extra, 1)}
    for where, items in lists.items():
        for item in items:
            key, _, value = item.partition("=")
            for name in phases_in(value):
                if name not in table.phases:
                    issues.add(f"{where}: {item}", "the table has no such phase", did_you_mean(name, table.phases))
            if not _OVERRIDE.fullmatch(item):
                issues.add(f"{where}: {item}", "not an override", "write key=value, like method=srste")
            elif where.startswith(("rows.", "columns.")) and not identified_option(key):
                issues.add(f"{where}: {item}", "is no part of an id: it makes no other cell", "write it in base")
            elif key in ("seed", "paper", "tier"):
                issues.add(
                    f"{where}: {item}", f"{key} is set by the table itself", "delete it (seeds: tiers.<tier>.seeds)"
                )
            elif key == "sparsity" and value != "null":
                with _At(f"{where}:", issues):
                    number = int(value) if value.isdigit() else value.strip("\"'")
                    Sparsity.parse(number)


def _check_cells(table: Table, tier: str, issues: Issues) -> None:
    cells = expand(table, tier)
    if not cells:
        issues.add(f"tiers.{tier}", "has no cell", "choose rows and columns that are not excluded")
    taken: dict[frozenset[str], Any] = {}
    for cell in cells:
        other = taken.setdefault(frozenset(cell.overrides), cell)
        if other is not cell:
            issues.add(f"tiers.{tier}", f"{other} and {cell} are the same cell", "exclude one of them")
            return
