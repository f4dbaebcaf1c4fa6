"""The schema of ``configs/paper/<slug>.yaml``; a paper's further tables are ``configs/paper/<slug>/<table>.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from sparselab.spec.configs import CONFIGS
from sparselab.spec.faults import Fault, Faults, Refused, did_you_mean, refuse
from sparselab.spec.options import Options
from sparselab.spec.sparsity import Sparsity
from sparselab.tables.claims import CLAIMS, Claim, Layout
from sparselab.tables.grid import PHASE, excluded, expand, number_of, places, rings
from sparselab.tables.validation import validated
from sparselab.tables.yamlfile import read_yaml

TIERS = ("smoke", "cpu", "gpu", "paper")
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_OVERRIDE = re.compile(r"\+?[A-Za-z_][\w./]*=[^\n\r]*")


class Source(Options):
    """Where the table was printed."""

    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$", description='the arXiv id in quotes, like "2102.04010"')
    title: str = Field(min_length=1, description="the paper's title")
    year: int = Field(ge=1950, le=2100, description="the year of publication")
    table: str = Field(min_length=1, description='what is reproduced, like "Table 2"')


class Metric(Options):
    """What is compared. ``scale`` turns the record's number into the printed one (100: a fraction into per cent)."""

    key: str = Field(min_length=1, description="a key of the record's metrics, like test.accuracy")
    label: str = Field(min_length=1, description='as printed, like "top-1 %"')
    better: Literal["higher", "lower"] = Field(description='"higher" or "lower"')
    scale: float = Field(1.0, gt=0, description="printed number over the record's, above 0")
    digits: int = Field(2, ge=0, le=6, description="digits after the point, 0 to 6")
    read: str = Field(min_length=1, description="when it is read, like: at the end of training, at the final sparsity")


class Reference(Options):
    """The dense cell of a cell: a coordinate that is left out is the cell's own."""

    row: str | None = Field(None, description="the name of a row")
    column: str | None = Field(None, description="the name of a column")

    def of(self, place: tuple[str, str]) -> tuple[str, str]:
        return self.row or place[0], self.column or place[1]


class Beside(Options):
    """A further column: a number of the records, or the mean distance of several to those of another cell.

    With ``to`` it is the mean over ``keys`` of |mean of the cell - mean of the other|, which says how close two cells come.
    """

    label: str = Field(min_length=1, description='as printed, like "RA %"')
    keys: list[str] = Field(
        min_length=1, description="keys of the record's metrics, account.NAME, or times.NAME for seconds"
    )
    to: Reference | None = Field(None, description="the cell that the distance is to; without it: no distance")
    scale: float = Field(1.0, gt=0, description="printed number over the record's, above 0")
    digits: int = Field(2, ge=0, le=6, description="digits after the point, 0 to 6")

    @model_validator(mode="after")
    def _one_number(self) -> Beside:
        if self.to is None and len(self.keys) > 1:
            raise ValueError("several keys need a cell that their distance is to")
        return self


class Axis(Options):
    """The figure's x axis where it is neither sparsity nor a count of parameters: any number of the records.

    With ``along`` the cells along the rows (or columns) are one curve, whatever else differs between them.
    """

    metric: str = Field(min_length=1, description="a key of the record's metrics, like test.horizon")
    label: str = Field(min_length=1, description='as printed, like "rounds"')
    log: bool = Field(False, description="true for a logarithmic axis")
    log_metric: bool = Field(False, description="true where the metric's own axis is logarithmic, too")
    along: Literal["rows", "columns"] | None = Field(
        None, description='"rows" for a curve per column, "columns" per row'
    )


class Excluded(Options):
    """Cells that the table does not have: all in these rows and columns (left out: in any)."""

    rows: list[str] | None = Field(None, description="names of rows")
    columns: list[str] | None = Field(None, description="names of columns")
    reason: str = Field(min_length=1, description="why there is no such cell")


class Extra(Options):
    """Overrides of some cells only, applied after those of their row and column; or of some phases."""

    phases: list[str] | None = Field(None, description="names of phases; with it no cell of the table is meant")
    rows: list[str] | None = Field(None, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, description="names of columns; without it: all")
    tiers: list[str] | None = Field(None, description="names of tiers; without it: all")
    overrides: list[str] = Field(min_length=1, description="overrides, like model.width=8")

    def meets(self, row: str, column: str, tier: str) -> bool:
        asked = ((self.rows, row), (self.columns, column), (self.tiers, tier))
        return self.phases is None and all(names is None or name in names for names, name in asked)

    def meets_phase(self, phase: str, tier: str) -> bool:
        return self.phases is not None and phase in self.phases and (self.tiers is None or tier in self.tiers)


class Published(Options):
    """A number as printed. One that nobody could check (``verified: false``) is shown as such and never compared."""

    row: str
    column: str
    value: float
    provenance: str = Field("", description="where the number was read")
    verified: bool = Field(description="true where somebody read it in the source")
    spread: float | None = Field(None, ge=0, description="the printed standard deviation")


class Tier(Options):
    """The table at one size. ``comparable``: model and data are the paper's, so differences to it are printed."""

    base: list[str] = Field(default_factory=list, description="overrides of every cell")
    rows: list[str] | None = Field(None, min_length=1, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, min_length=1, description="names of columns; without it: all")
    seeds: list[int] = Field(min_length=1, description="seeds, like [0, 1, 2]")
    minutes: float = Field(gt=0, description="expected minutes of the whole table, above 0")
    comparable: bool = Field(False, description="true where model and data are the paper's")
    note: str = Field("", description="what a reader has to know about this tier")


class Table(Options):
    """A table of a paper. ``base`` are overrides of every cell; rows and columns are named lists of overrides.

    ``phases`` are cells that others start from, as named lists of overrides after the base and the tier's: a value ``{name}``
    in a row, a column, an extra or another phase is the network of that phase for the cell's own seed.
    """

    paper: str
    name: str
    source: Source
    metric: Metric
    base: list[str] = Field(default_factory=list, description="overrides of every cell")
    rows: dict[str, list[str]] = Field(min_length=1, description="a list of overrides for each name")
    columns: dict[str, list[str]] = Field(min_length=1, description="a list of overrides for each name")
    reference: Reference | None = Field(None, description="row and column of the dense cell")
    phases: dict[str, list[str]] = Field(
        default_factory=dict, description="a list of overrides for each name: cells that others start from"
    )
    extra: list[Extra] = Field(default_factory=list, description="overrides of some cells only")
    exclude: list[Excluded] = Field(default_factory=list, description="cells that are not there, with the reason")
    pool: Literal["table", "columns", "rows"] = Field(
        "table", description='cells that share a spread: all ("table"), or those of the same column or row'
    )
    beside: list[Beside] = Field(default_factory=list, description="further columns, beside the metric")
    axis: Literal["sparsity", "nonzero"] | Axis = Field(
        "sparsity", description='the figure\'s x axis: "sparsity", "nonzero", or {metric, label} of the records'
    )
    published: list[Published] = Field(default_factory=list, description="numbers as printed")
    differences: list[str] = Field(
        default_factory=list, description="sentences: what is known to differ from the paper"
    )
    tiers: dict[str, Tier] = Field(min_length=1, description=f"any of {', '.join(TIERS)}")
    claims: list[SerializeAsAny[Claim]] = Field(default_factory=list, description="what the paper says")

    @property
    def output(self) -> str:
        """``<paper>`` for the paper's first table, ``<paper>/<table>`` for a further one."""
        return f"{self.paper}/{self.name}" if self.name else self.paper

    @property
    def label(self) -> str:
        """How a user names the table on the command line."""
        return f"paper={self.output}"

    def dense(self, place: tuple[str, str]) -> tuple[str, str] | None:
        """The place of a cell's dense reference."""
        return self.reference.of(place) if self.reference else None

    def group(self, place: tuple[str, str]) -> str:
        """The cells that share a spread have the same one."""
        return {"table": "", "columns": place[1], "rows": place[0]}[self.pool]

    def layout(self, tier: str) -> Layout:
        """What of this tier a claim may look at."""
        cells = places(self, tier)
        return Layout(
            tuple(dict.fromkeys(row for row, _ in cells)),
            tuple(column for column in self.columns if any(c == column for _, c in cells)),
            frozenset(cells),
            self.dense,
            1 if self.metric.better == "higher" else -1,
            lambda place, key: number_of(self, tier, place, key),
        )


def papers(configs: Path = CONFIGS) -> list[str]:
    """The slugs of all papers that have a table, sorted."""
    return sorted({slug for slug, _, _ in _files(configs)})


def load(paper: str, configs: Path = CONFIGS) -> list[Table]:
    """All tables of a paper (``<slug>``) or one further table (``<slug>/<table>``); Refused with all faults."""
    slug, _, wanted = paper.partition("/")
    files = [(s, name, path) for s, name, path in _files(configs) if s == slug]
    if not files:
        refuse(f"paper={paper}", "no such paper", did_you_mean(slug, papers(configs)))
    faults = Faults()
    _one_output(files, faults, configs)
    names = [name for _, name, _ in files]
    if wanted and wanted not in names:
        refuse(f"paper={paper}", f"{slug} has no such table", did_you_mean(wanted, filter(None, names)))
    tables = []
    for _, name, path in files:
        if not wanted or name == wanted:
            with faults.catch():
                tables.append(_load(slug, name, path, configs))
    faults.raise_if_any()
    return tables


def load_all(configs: Path = CONFIGS) -> list[Table]:
    """Every table of every paper."""
    faults = Faults()
    tables: list[Table] = []
    for paper in papers(configs):
        with faults.catch():
            tables += load(paper, configs)
    faults.raise_if_any()
    return tables


def _files(configs: Path) -> Iterator[tuple[str, str, Path]]:
    """(slug, name of the table or "", path) of every file of tables."""
    root = configs / "paper"
    for path in sorted(root.glob("*.y*ml")):
        yield path.stem, "", path
    for path in sorted(root.glob("*/*.y*ml")):
        yield path.parent.name, path.stem, path


def _one_output(files: list[tuple[str, str, Path]], faults: Faults, configs: Path) -> None:
    """Two files may not write to the same results, also where the file system ignores case."""
    taken: dict[str, Path] = {}
    for slug, name, path in files:
        output = f"{slug}/{name}".casefold().rstrip("/")
        other = taken.setdefault(output, path)
        if other != path:
            problem = f"claims the output of {_relative(other, configs)}"
            faults.add(_relative(path, configs), problem, "rename or delete one of them")
        if not _NAME.fullmatch(slug) or (name and not _NAME.fullmatch(name)):
            faults.add(_relative(path, configs), "not a name for a table", "use a-z, 0-9 and _ only, like srste.yaml")


def _relative(path: Path, configs: Path) -> str:
    return path.relative_to(configs.parent).as_posix()


def _load(slug: str, name: str, path: Path, configs: Path) -> Table:
    where = _relative(path, configs)
    raw = read_yaml(path, where)
    faults = Faults()
    for key in ("paper", "name"):
        if key in raw:
            faults.add(f"{where} {key}", "is the file's own name", "delete the line")
    with _At(where, faults):
        claims = _claims(raw.get("claims"))
        raw = {**raw, "claims": claims}
    with _At(where, faults):
        shape = {**raw, "claims": [], "paper": slug, "name": name}
        table = validated(Table, shape)
    faults.raise_if_any()
    table = table.model_copy(update={"claims": claims})
    with _At(where, faults):
        _check(table)
    faults.raise_if_any()
    return table


class _At:
    """Collects the faults of its block, each with the file's name in front."""

    def __init__(self, where: str, faults: Faults):
        self.where, self.faults = where, faults

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Refused):
            return False
        self.faults.found += [Fault(f"{self.where} {f.where}", f.problem, f.fix) for f in error.faults]
        return True


def _claims(raw: Any) -> list[Claim]:
    faults = Faults()
    claims: list[Claim] = []
    if not isinstance(raw, list | None):
        refuse("claims", "is not a list", "write one `- kind: ...` per claim")
    for number, item in enumerate(raw or [], 1):
        with faults.catch():
            if not isinstance(item, dict) or "kind" not in item:
                refuse(f"claims.C{number}", "has no kind", did_you_mean("", CLAIMS))
            claims.append(validated(CLAIMS[str(item["kind"])], item, f"claims.C{number}"))
    faults.raise_if_any()
    return claims


def _check(table: Table) -> None:
    """Everything that the types cannot say, all faults at once."""
    faults = Faults()
    _check_tiers(table, faults)
    _check_names(table, faults)
    _check_published(table, faults)
    _check_overrides(table, faults)
    for name in rings(table):
        faults.add(f"phases.{name}", "starts from itself", "name a phase that does not need it")
    if not faults.found:
        for tier in table.tiers:
            _check_cells(table, tier, faults)
    if not faults.found:
        _check_numbers(table, faults)
    faults.raise_if_any()


def _check_numbers(table: Table, faults: Faults) -> None:
    """Claims along a numeric axis need a number of each of their cells."""
    for number, claim in enumerate(table.claims, 1):
        for tier in claim.tiers if claim.tiers is not None else table.tiers:
            lacking = claim.unset(table.layout(tier)) if tier in table.tiers else []
            if lacking:
                where = f"claims.C{number} x={getattr(claim, 'x', '')}"
                problem = f"{' · '.join(lacking[0])} does not set it to a number (tier {tier})"
                faults.add(where, problem, "set it in its row or column, or leave it out of the claim")
                break


def _check_tiers(table: Table, faults: Faults) -> None:
    for name, tier in table.tiers.items():
        if name not in TIERS:
            faults.add(f"tiers.{name}", "no such tier", did_you_mean(name, TIERS))
        if len(set(tier.seeds)) < len(tier.seeds):
            faults.add(f"tiers.{name}.seeds={tier.seeds}", "the same seed twice", "write each seed once")


def _check_names(table: Table, faults: Faults) -> None:
    def known(where: str, row: str | None, column: str | None) -> None:
        if row is not None and row not in table.rows:
            faults.add(f"{where} row={row}", "the table has no such row", did_you_mean(row, table.rows))
        if column is not None and column not in table.columns:
            faults.add(f"{where} column={column}", "the table has no such column", did_you_mean(column, table.columns))

    def all_known(where: str, rows: list[str] | None, columns: list[str] | None) -> None:
        for row in rows or []:
            known(where, row, None)
        for column in columns or []:
            known(where, None, column)

    def known_tiers(where: str, tiers: list[str] | None) -> None:
        for tier in tiers or []:
            if tier not in TIERS:
                faults.add(f"{where}.tiers={tier}", "no such tier", did_you_mean(tier, TIERS))

    if table.reference:
        known("reference", table.reference.row, table.reference.column)
    for number, column in enumerate(table.beside, 1):
        if column.to:
            known(f"beside.{number}.to", column.to.row, column.to.column)
    for number, item in enumerate(table.exclude, 1):
        all_known(f"exclude.{number}", item.rows, item.columns)
        if item.rows is None and item.columns is None:
            faults.add(f"exclude.{number}", "excludes every cell", "write rows, columns or both")
    for number, extra in enumerate(table.extra, 1):
        all_known(f"extra.{number}", extra.rows, extra.columns)
        for name in extra.phases or []:
            if name not in table.phases:
                faults.add(
                    f"extra.{number} phase={name}", "the table has no such phase", did_you_mean(name, table.phases)
                )
        if extra.phases is not None and (extra.rows or extra.columns):
            faults.add(f"extra.{number}", "is of phases and of cells", "write phases, or rows and columns")
        known_tiers(f"extra.{number}", extra.tiers)
    for name, tier in table.tiers.items():
        all_known(f"tiers.{name}", tier.rows, tier.columns)
    for number, claim in enumerate(table.claims, 1):
        all_known(f"claims.C{number}", claim.rows, claim.columns)
        for top in claim.points():
            for point in top.all():
                known(f"claims.C{number}", point.row, point.column)
        known_tiers(f"claims.C{number}", claim.tiers)


def _check_published(table: Table, faults: Faults) -> None:
    seen: set[tuple[str, str]] = set()
    for item in table.published:
        where = f"published ({item.row}, {item.column})"
        if not item.provenance.strip():
            faults.add(
                where,
                f"{item.value:g} has no provenance",
                "write provenance: where it was read (and verified: false if nowhere)",
            )
        if item.row not in table.rows:
            faults.add(where, "the table has no such row", did_you_mean(item.row, table.rows))
        elif item.column not in table.columns:
            faults.add(where, "the table has no such column", did_you_mean(item.column, table.columns))
        elif (reason := excluded(table, item.row, item.column)) is not None:
            faults.add(where, f"the cell is excluded ({reason})", "delete one of the two")
        if (item.row, item.column) in seen:
            faults.add(where, "two published numbers for one cell", "keep the one with the better provenance")
        seen.add((item.row, item.column))


def _check_overrides(table: Table, faults: Faults) -> None:
    lists = {"base": table.base}
    lists |= {f"rows.{name}": items for name, items in table.rows.items()}
    lists |= {f"columns.{name}": items for name, items in table.columns.items()}
    lists |= {f"tiers.{name}.base": tier.base for name, tier in table.tiers.items()}
    lists |= {f"phases.{name}": items for name, items in table.phases.items()}
    lists |= {f"extra.{number}": item.overrides for number, item in enumerate(table.extra, 1)}
    for where, items in lists.items():
        for item in items:
            key, _, value = item.partition("=")
            if (named := PHASE.fullmatch(value)) and named[1] not in ("seed", *table.phases):
                faults.add(f"{where}: {item}", "the table has no such phase", did_you_mean(named[1], table.phases))
            if not _OVERRIDE.fullmatch(item):
                faults.add(f"{where}: {item}", "not an override", "write key=value, like method=srste")
            elif key in ("seed", "paper", "tier"):
                faults.add(
                    f"{where}: {item}", f"{key} is set by the table itself", "delete it (seeds: tiers.<tier>.seeds)"
                )
            elif key == "sparsity" and value != "null":
                with _At(f"{where}:", faults):
                    number = int(value) if value.isdigit() else value.strip("\"'")
                    Sparsity.parse(number)


def _check_cells(table: Table, tier: str, faults: Faults) -> None:
    cells = expand(table, tier)
    if not cells:
        faults.add(f"tiers.{tier}", "has no cell", "choose rows and columns that are not excluded")
    taken: dict[frozenset[str], Any] = {}
    for cell in cells:
        other = taken.setdefault(frozenset(cell.overrides), cell)
        if other is not cell:
            faults.add(f"tiers.{tier}", f"{other} and {cell} are the same cell", "exclude one of them")
            return
