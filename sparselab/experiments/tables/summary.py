"""From records to the numbers of a table, once, for every rendering."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.experiments.tables.claims import Verdict, judge
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.grid import Cell, excluded, expand, layout, merge
from sparselab.experiments.tables.schema import ExtraColumn, Published, Table


@dataclass(frozen=True)
class Line:
    """A cell of the table over its seeds. Numbers are in printed units; None where there is nothing to say.

    planned: seeds that the tier asks for. entries: finished records that have the metric, by seed. failed: ids of
    failed runs. recovery: per cent of the dense reference. requested: the sparsity asked for. sparsity: realised, a
    fraction of the targeted weights. macs: of one sample. flops: of training, over those of the dense reference (where
    it has no record: over the same network trained dense). x: where the cell lies in the figure. extra_columns: mean, standard
    deviation of each further column.
    """

    row: str
    column: str
    series: str
    planned: int
    entries: tuple[Entry, ...]
    values: tuple[float, ...]
    failed: tuple[str, ...]
    mean: float | None
    sd: float | None
    published: Published | None
    difference: float | None
    recovery: float | None
    requested: float | None
    sparsity: float | None
    nonzero: float | None
    macs: float | None
    flops: float | None
    flops_by_seed: tuple[float | None, ...]
    x: float | None
    x_by_seed: tuple[float | None, ...]
    verdicts: tuple[Verdict, ...]
    extra_columns: tuple[tuple[float | None, float | None], ...]

    @property
    def place(self) -> tuple[str, str]:
        return self.row, self.column


@dataclass(frozen=True)
class Summary:
    """A table at a tier: its lines, its verdicts, and the data sets that the records name.

    mixed: those of the sets that were not the same for all records, though they should have been.
    """

    table: Table
    tier: str
    lines: tuple[Line, ...]
    verdicts: tuple[Verdict, ...]
    data: tuple[str, ...]
    mixed: tuple[str, ...] = ()

    @property
    def planned(self) -> int:
        return sum(line.planned for line in self.lines)

    @property
    def done(self) -> int:
        return sum(len(line.entries) for line in self.lines)

    @property
    def comparable(self) -> bool:
        return self.table.tiers[self.tier].comparable

    @property
    def trained(self) -> bool:
        """True if there is a cost of training to draw against; while nothing has run, there may be."""
        return any(line.flops is not None for line in self.lines) or not self.done

    @property
    def continued(self) -> bool:
        """True if cells stand on runs of other cells: the costs of training are those of each cell's own run."""
        return any(entry.continues for line in self.lines for entry in line.entries)

    @property
    def cost_label(self) -> str:
        """The name of the figure's axis of training costs."""
        return f"training FLOPs × dense{', last phase alone' if self.continued else ''}"

    @property
    def axis(self) -> tuple[str, bool]:
        """(label, whether logarithmic) of the figure's x axis."""
        axis = self.table.axis
        if isinstance(axis, str):
            return ("non-zero parameters", True) if axis == "nonzero" else ("realised sparsity", False)
        return axis.label, axis.log

    @property
    def log_metric(self) -> bool:
        """True if the metric is drawn on a logarithmic axis."""
        return not isinstance(self.table.axis, str) and self.table.axis.log_metric

    @property
    def shown(self) -> list[str]:
        """The claims that the figure is about, which its axis names, with their verdicts."""
        named = [] if isinstance(self.table.axis, str) else self.table.axis.claims
        return [f"{v.name} {v}: {v.claim.text}" for v in self.verdicts if v.name in named]

    def excluded(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Reasons, each with the cells of this tier that are not there for it."""
        spec = self.table.tiers[self.tier]
        found: dict[str, list[tuple[str, str]]] = {}
        for row in self.table.rows:
            for column in self.table.columns:
                chosen = (spec.rows is None or row in spec.rows) and (spec.columns is None or column in spec.columns)
                reason = excluded(self.table, row, column) if chosen else None
                if reason is not None:
                    found.setdefault(reason, []).append((row, column))
        return list(found.items())

    def curves(self) -> dict[str, list[Line]]:
        """The lines of each curve of the figure. A curve starts at its dense reference, which has none of its own.

        A tier that has none of the cells that the axis chooses shows all of its own.
        """
        axis = self.table.axis
        chosen = [line for line in self.lines if isinstance(axis, str) or axis.draws(line.place)] or self.lines
        by_place = {line.place: line for line in chosen}
        dense = {place for line in by_place.values() if (place := self.table.dense(line.place)) in by_place}
        found: dict[str, list[Line]] = {}
        for line in by_place.values():
            found.setdefault(line.series, []).append(line)
        for name, lines in list(found.items()):
            if all(line.place in dense for line in lines) and len(found) > 1:
                del found[name]
                continue
            own = {line.place for line in lines}
            starts = dict.fromkeys(
                p for line in lines if (p := self.table.dense(line.place)) in by_place and p not in own
            )
            found[name] = [by_place[place] for place in starts if place is not None] + lines
        return found

    def count(self, verdict: str, basis: str = "empirical") -> int:
        """How many claims of that basis have the verdict."""
        return sum(v.verdict == verdict and v.claim.basis == basis for v in self.verdicts)


def summarise(table: Table, tier: str, entries: Sequence[Entry]) -> Summary:
    """The table's numbers from its records."""
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in expand(table, tier):
        cells.setdefault(cell.place, []).append(cell)
    by_place: dict[tuple[str, str], list[Entry]] = {place: [] for place in cells}
    found = {entry.cell: entry for entry in entries}
    for place, planned in cells.items():
        by_place[place] = [found[cell] for cell in planned if cell in found]
    scale = table.metric.scale

    def samples(metric: str | None) -> dict[tuple[str, str], dict[int, float]]:
        further = next((column for column in table.extra_columns if column.label == metric), None)
        if further is not None:
            return {place: _extra_by_seed(further, place, by_place) for place in by_place}
        factor = scale if metric in (None, table.metric.key) else 1.0
        return {
            place: {e.cell.seed: v for e in found if (v := value(e, metric or table.metric.key, factor)) is not None}
            for place, found in by_place.items()
        }

    verdicts = judge(table.claims, tier, layout(table, tier), samples, table.metric.digits, table.is_deterministic)
    own = {place: list(by_seed.values()) for place, by_seed in samples(None).items()}
    series = _series(table, list(cells))
    published = {(item.row, item.column): item for item in table.published}
    lines = tuple(
        _line(table, tier, place, planned, by_place, own, series[place], published.get(place), verdicts)
        for place, planned in cells.items()
    )
    data = {title for e in entries if (title := data_title(e.record))}
    return Summary(table, tier, lines, tuple(verdicts), tuple(sorted(data)), mixed(entries))


def value(entry: Entry, metric: str, scale: float) -> float | None:
    """A finished record's metric in printed units; None where it has none or it is not finite.

    ``account.NAME`` is a count of the account, ``times.NAME`` are seconds that something took.
    """
    section, _, name = metric.partition(".")
    place = (section, name) if section in ("account", "times") else ("metrics", metric)
    number = entry.number(*place) if entry.finished else None
    return None if number is None or not math.isfinite(number) else number * scale


def mixed(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Titles of data sets that records asked for alike and that held different things: the hub changed in between."""
    contents: dict[tuple[str, ...], set[str]] = {}
    for entry in entries:
        data = entry.record.get("data")
        if isinstance(data, dict) and data.get("content"):
            asked = [str(data.get(key)) for key in ("name", "fingerprint", "train", "val", "test")]
            asked.append(str((entry.record.get("config") or {}).get("dataset")))  # which draw of the test data, for one
            contents.setdefault((data_title(entry.record), *asked), set()).add(str(data["content"]))
    return tuple(sorted({asked[0] for asked, found in contents.items() if len(found) > 1}))


def abscissa(table: Table, entry: Entry) -> float | None:
    """Return a record's place on the figure's x axis."""
    if isinstance(table.axis, str):
        places = {"sparsity": ("sparsity", "realised"), "nonzero": ("account", "params_nonzero")}
        return entry.number(*places[table.axis])
    if table.axis.at:
        return table.axis.at.get(entry.cell.place[table.axis.along == "columns"])
    return value(entry, table.axis.metric, 1)


def data_title(record: dict) -> str:
    """The name of the data set that a record was made from."""
    data = record.get("data")
    return str(data.get("title") or data.get("name") or "") if isinstance(data, dict) else ""


def _line(
    table: Table,
    tier: str,
    place: tuple[str, str],
    planned: list[Cell],
    by_place: dict[tuple[str, str], list[Entry]],
    samples: dict[tuple[str, str], list[float]],
    series: str,
    published: Published | None,
    verdicts: list[Verdict],
) -> Line:
    found, at = by_place[place], table.dense(place)
    used = tuple(e for e in found if value(e, table.metric.key, 1.0) is not None)
    values = samples[place]
    mean = math.fsum(values) / len(values) if values else None
    reference = samples.get(at, []) if at else []
    cost = _average(by_place.get(at, []) if at else [], lambda e: e.number("account", "flops_train"))
    flops = tuple(
        _over(e.number("account", "flops_train"), cost or e.number("account", "flops_train_dense")) for e in used
    )
    difference = None
    if mean is not None and published is not None and published.verified and table.tiers[tier].comparable:
        difference = mean - published.value
    return Line(
        *place,
        series,
        len(planned),
        used,
        tuple(values),
        tuple(e.id for e in found if not e.finished),
        mean,
        _sd(values),
        published,
        difference,
        _recovery(table, mean, math.fsum(reference) / len(reference) if reference else None),
        requested(planned[0].overrides),
        _average(used, lambda e: e.number("sparsity", "realised")),
        _average(used, lambda e: e.number("account", "params_nonzero")),
        _average(used, lambda e: e.number("account", "macs")),
        _mean(flops),
        flops,
        _mean(xs := tuple(abscissa(table, e) for e in used)),
        xs,
        tuple(v for v in verdicts if place in v.cells),
        tuple(_extra(column, place, by_place) for column in table.extra_columns),
    )


def _extra(
    column: ExtraColumn, place: tuple[str, str], by_place: dict[tuple[str, str], list[Entry]]
) -> tuple[float | None, float | None]:
    """(mean, standard deviation) of a further column; a distance has no deviation."""

    def found(key: str, at: tuple[str, str]) -> list[float]:
        return [v for e in by_place.get(at, []) if (v := value(e, key, column.scale)) is not None]

    if column.to is None:
        own = found(column.keys[0], place)
        return _mean(own), _sd(own)
    gaps = []
    for key in column.keys:
        here, there = _mean(found(key, place)), _mean(found(key, column.to.of(place)))
        if here is None or there is None:
            return None, None
        gaps.append(abs(here - there))
    return _mean(gaps), None


def _extra_by_seed(
    column: ExtraColumn, place: tuple[str, str], by_place: dict[tuple[str, str], list[Entry]]
) -> dict[int, float]:
    """A further column seed by seed; a distance is then the mean of |cell - other cell| within the seed."""
    there = {e.cell.seed: e for e in by_place.get(column.to.of(place), [])} if column.to else {}
    found: dict[int, float] = {}
    for entry in by_place[place]:
        own = [value(entry, key, column.scale) for key in column.keys]
        if column.to is not None:
            other = there.get(entry.cell.seed)
            beside = [value(other, key, column.scale) if other else None for key in column.keys]
            own = [abs(a - b) if a is not None and b is not None else None for a, b in zip(own, beside, strict=True)]
        known = [number for number in own if number is not None]
        if len(known) == len(column.keys):
            found[entry.cell.seed] = math.fsum(known) / len(known)
    return found


def _over(own: float | None, dense: float | None) -> float | None:
    return own / dense if own is not None and dense else None


def requested(overrides: Sequence[str]) -> float | None:
    """The fraction of weights removed that the overrides ask for, 0 where they ask for none; None where it is not one."""
    if any(item.startswith("targets.patterns=") for item in overrides):
        return None
    asked = next((item.partition("=")[2] for item in overrides if item.startswith("sparsity=")), None)
    try:
        if asked in (None, "null"):
            return 0.0
        parsed = Sparsity.parse(str(asked).strip("\"'"))
        return None if parsed.matches_cost else parsed.sparsity
    except ConfigError:
        return None


def _recovery(table: Table, mean: float | None, dense: float | None) -> float | None:
    if table.reference is None or mean is None or dense is None or mean <= 0 or dense <= 0:
        return None
    return 100 * (mean / dense if table.metric.better == "higher" else dense / mean)


def _sd(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _average(entries: Sequence[Entry], of: Callable[[Entry], float | None]) -> float | None:
    return _mean([of(entry) for entry in entries if entry.finished])


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return math.fsum(known) / len(known) if known else None


def _series(table: Table, cells: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Name the curve of each cell.

    Cells whose rows and columns differ in nothing but the sparsity, and share a pattern, are one curve. Its name is what the
    names of its rows, and of its columns, have in common at their start ("ERK" of "ERK 0.8" and "ERK 0.9"). A dense reference
    is on no curve of its own kind: the others start at it. A table's own axis may say that each column (or row) is a curve.
    """
    if not isinstance(table.axis, str) and table.axis.along:
        return {place: place[table.axis.along == "rows"] for place in cells}
    curves: dict[object, list[tuple[str, str]]] = {}
    for row, column in cells:
        merged = merge(table.rows[row], table.columns[column])
        asked = frozenset(i for i in merged if not i.startswith("sparsity=")), _pattern(merged)
        own = (row, column) == table.dense((row, column))
        curves.setdefault((row, column) if own else asked, []).append((row, column))
    names: dict[tuple[str, str], str] = {}
    for places in [part for whole in curves.values() for part in _apart(table, whole)]:
        parts = [_common([row for row, _ in places]), _common([column for _, column in places])]
        name = " · ".join(part for part in parts if part) or " · ".join(places[0])
        names |= dict.fromkeys(places, name)
    return names


def _apart(table: Table, places: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The cells of a curve; of a curve for each column where a row has two cells of one sparsity.

    What tells these apart is said under ``extra``, cell by cell.
    """
    asked = [(row, _asked(merge(table.rows[row], table.columns[column]))) for row, column in places]
    if len(set(asked)) == len(places):
        return [places]
    return [[place for place in places if place[1] == name] for name in dict.fromkeys(column for _, column in places)]


def _asked(overrides: Sequence[str]) -> str:
    """The sparsity that overrides ask for, as written; "" where they ask for none."""
    return next((item.partition("=")[2] for item in overrides if item.startswith("sparsity=")), "")


def _pattern(overrides: Sequence[str]) -> str:
    """The name of the pattern that overrides ask for; "" where they ask for none, or for what is no sparsity."""
    asked = _asked(overrides)
    try:
        return Sparsity.parse(asked.strip("\"'")).kind if asked else ""
    except ConfigError:
        return ""


def _common(names: list[str]) -> str:
    """The words that all names start with."""
    words = [name.split() for name in dict.fromkeys(names)]
    shared = []
    for group in zip(*words, strict=False):
        if len(set(group)) > 1:
            break
        shared.append(group[0])
    return " ".join(shared)
