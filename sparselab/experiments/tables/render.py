"""Markdown, CSV and the terminal. The same records give the same bytes: no dates, no machine, fixed order."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sparselab.experiments.tables.claims import POWER, RULE, SEEDS, Verdict
from sparselab.experiments.tables.pictures import pictures
from sparselab.experiments.tables.schema import Table
from sparselab.experiments.tables.summary import Line, Summary

if TYPE_CHECKING:
    from rich.console import Console

NONE = "–"
NOT_RUN = "not run"
HEADERS = (
    "row", "column", "ours ± sd (n)", "published", "difference", "recovery", "sparsity", "non-zeros", "MACs",
    "training FLOPs × dense",
)  # fmt: skip
LAST = ("verdicts", "records")
NUMBERS = 2
"""The first of the columns that hold numbers; those of a table's own come after :data:`HEADERS`, :data:`LAST` after them."""

WIDE = 200
NARROW = 150
SPARED = ("difference", "non-zeros", "MACs", "verdicts")
"""Columns left out on a terminal narrower than NARROW."""
MARKS = {"holds": "✓", "fails": "✗", "inconclusive": "?", "not run": "·"}
STYLES = {"holds": "green", "fails": "bold red", "inconclusive": "yellow", "not run": "dim"}


def quantity(number: float | None) -> str:
    """Three significant digits and a unit: 4,120,000 is 4.12 M."""
    if number is None:
        return NONE
    for size, unit in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def fixed(number: float | None, digits: int, unit: str = "", sign: bool = False) -> str:
    """``digits`` digits after the point, a true minus, and a dash for nothing."""
    if number is None:
        return NONE
    return f"{round(number, digits) + 0.0:{'+' if sign else ''}.{digits}f}{unit}".replace("-", "−")


def ours(line: Line, digits: int) -> str:
    """``mean ± sd (n)``; ``(n of m)`` while seeds are missing."""
    if line.mean is None:
        return "failed" if line.failed else NOT_RUN
    n = f"{len(line.values)}" if len(line.values) == line.planned else f"{len(line.values)} of {line.planned}"
    spread = "" if line.sd is None else f" ± {line.sd:.{digits}f}"
    return f"{fixed(line.mean, digits)}{spread} ({n})"


def published(line: Line, digits: int) -> str:
    """The printed number; one that nobody could check carries a question mark."""
    if line.published is None:
        return NONE
    return f"{line.published.value:.{digits}f}{'' if line.published.verified else ' (?)'}"


def headers(summary: Summary) -> list[str]:
    """The names of all columns, those of the table's own included."""
    return [*HEADERS, *(column.label for column in summary.table.extra_columns), *LAST]


def texts(line: Line, table: Table) -> list[str]:
    """The line as text, without its verdicts and records."""
    digits = table.metric.digits
    return [
        line.row,
        line.column,
        ours(line, digits),
        published(line, digits),
        fixed(line.difference, digits, sign=True),
        fixed(line.recovery, 1, " %"),
        fixed(line.sparsity, 4),
        quantity(line.nonzero),
        quantity(line.macs),
        fixed(line.flops, 3),
        *(
            fixed(mean, column.digits) + ("" if sd is None else f" ± {sd:.{column.digits}f}")
            for column, (mean, sd) in zip(table.extra_columns, line.extra_columns, strict=True)
        ),
    ]


def columns(summary: Summary) -> list[int]:
    """The columns that say something: an engine without a network has no MACs, for one."""
    rows, count = [texts(line, summary.table) for line in summary.lines], len(headers(summary))
    optional = range(NUMBERS + 1, count - len(LAST)) if summary.done else ()
    empty = {n for n in optional if all(row[n] == NONE for row in rows)}
    return [number for number in range(count) if number not in empty]


def verdicts(line: Line) -> str:
    """The claims that the cell takes part in, with what became of them."""
    return ", ".join(f"{v.name} {v.verdict}" for v in line.verdicts) or NONE


def kind(verdict: Verdict) -> str:
    """Words for how a claim counts; "" for an empirical one that is no headline."""
    basis = "" if verdict.claim.basis == "empirical" else verdict.claim.basis
    return ", ".join(word for word in ("headline" if verdict.claim.headline else "", basis) if word)


def evidence(verdict: Verdict) -> str:
    """The numbers behind a verdict, and of an inconclusive one the seeds that would decide it."""
    return verdict.evidence + (f"; {100 * POWER:.0f} % power would take {verdict.needs}" if verdict.needs else "")


def claim_rows(summary: Summary) -> list[list[str]]:
    """A header and a row for each claim: name, text, kind, verdict, rule 1's verdict (where any differs), evidence."""
    rows = [["", "the paper says", "kind", "verdict", "rule 1", "evidence"]]
    rows += [[v.name, v.claim.text, kind(v), str(v), v.earlier, evidence(v)] for v in summary.verdicts]
    kept = [number for number, cells in enumerate(zip(*rows, strict=True)) if number not in (2, 4) or any(cells[1:])]
    return [[row[number] for number in kept] for row in rows]


def title(summary: Summary) -> str:
    """Return the paper's title and year, its table and the tier."""
    source = summary.table.source
    return f"{source.title} ({source.year}), {source.table}, tier {summary.tier}"


def notes(summary: Summary) -> list[str]:
    """Return the notes for a reader, as sentences."""
    table, tier = summary.table, summary.table.tiers[summary.tier]
    found = [
        f"{summary.done} of {summary.planned} runs. {table.metric.label}, {table.metric.better} is better; "
        f"read {table.metric.read}."
    ]
    if summary.data:
        found.append(f"Data: {', '.join(summary.data)}.")
    if summary.mixed:
        found.append(f"Not every record saw the same {', '.join(summary.mixed)}: the public set changed in between.")
    if summary.verdicts:
        found.append(f"Verdicts by rule {RULE}: contrasts are tested seed by seed, with {SEEDS} seeds at least.")
        if any(summary.tier in v.claim.rule1 for v in summary.verdicts):
            found[-1] += (
                " The rule was chosen after results of seeds 0 to 4 at most were seen; later seeds are new, none was dropped,"
                " and their number did not depend on a verdict."
            )
        if any(v.earlier for v in summary.verdicts):
            found[-1] += " Where rule 1 (pooled spreads) gave another verdict on the records of its time, it is shown."
    if summary.trained and summary.alone:
        found.append(
            "Training FLOPs are those of each cell's own run, without what the cells that it starts from took."
        )
    if tier.shared and summary.verdicts:
        found.append(f"All seeds share {tier.shared}: what is concluded here is concluded about it.")
    if tier.note:
        found.append(tier.note)
    shown = [line.published for line in summary.lines if line.published is not None]
    if shown and not tier.comparable:
        found.append("The published numbers are of the paper's own setting: shown beside ours, not compared.")
    if any(not item.verified for item in shown):
        found.append("(?) nobody could check this number in the source: shown, never compared.")
    return found


def to_markdown(summary: Summary) -> str:
    """``table.md``."""
    lines = [f"# {escape(title(summary))}", "", summary.table.source.cited, ""]
    lines += [f"- {escape(note)}" for note in notes(summary)]
    rows, shown = [], columns(summary)
    for line in summary.lines:
        ids = " ".join(f"`{escape(e.id)}`" for e in line.entries) or NONE
        row = [*map(escape, texts(line, summary.table)), verdicts(line), ids]
        rows.append([row[number] for number in shown])
    names = headers(summary)
    align = "ll" + "r" * (len(names) - 4) + "ll"
    lines += ["", *markdown_table([escape(names[n]) for n in shown], rows, "".join(align[n] for n in shown))]
    if summary.verdicts:
        names, *claims = [[*map(escape, row)] for row in claim_rows(summary)]
        for row in claims:
            row[names.index("verdict")] = f"**{row[names.index('verdict')]}**"
        lines += ["", "## Claims", "", *markdown_table(names, claims, "l" * len(names))]
    lines += _pictures(summary)
    lines += _section("Known differences", list(summary.table.differences))
    lines += _section("Not in the table", [f"{places(cells)}: {reason}" for reason, cells in summary.excluded()])
    lines += _section("Provenance of the published numbers", provenance(summary))
    return "\n".join(lines) + "\n"


def _pictures(summary: Summary) -> list[str]:
    found = pictures(summary.table, [entry for line in summary.lines for entry in line.entries])
    shown = [line for one in found for line in ("", f"{escape(one.caption)}:", "", f"![{one.caption}]({one.name})")]
    return ["", "## Pictures", *shown] if shown else []


def provenance(summary: Summary) -> list[str]:
    """Return the sources of this tier's published numbers, one line each."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in summary.lines:
        if line.published is not None:
            checked = "" if line.published.verified else " (not checked)"
            found.setdefault(line.published.provenance + checked, []).append(line.place)
    return [f"{places(cells)}: {source}" for source, cells in found.items()]


def places(cells: Sequence[tuple[str, str]]) -> str:
    """Cells in words, by column."""
    columns: dict[str, list[str]] = {}
    for row, column in cells:
        columns.setdefault(column, []).append(row)
    return "; ".join(f"{column} ({', '.join(rows)})" for column, rows in columns.items())


def _section(heading: str, items: list[str]) -> list[str]:
    return ["", f"## {heading}", "", *(f"- {escape(item)}" for item in items)] if items else []


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return the lines of a Markdown table. align: ``l`` or ``r`` for each column."""
    rule = "| " + " | ".join("---" if a == "l" else "--:" for a in align) + " |"
    return ["| " + " | ".join(headers) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line of a table."""
    for sign in ("\\", "|", "<", ">", "*", "_", "`", "[", "]"):
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, "\\" + sign))
    return " ".join(text.split())


def to_csv(summary: Summary) -> str:
    """``table.csv``: a line per cell, numbers in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["row", "column", "mean", "sd", "n", "planned", "published", "published_verified", "provenance", "difference",
         "recovery_percent", "sparsity_requested", "sparsity_realised", "params_nonzero", "macs", "flops_train_x_dense",
         *(_safe(column.label) for column in summary.table.extra_columns), "verdicts", "records"]
    )  # fmt: skip
    for line in summary.lines:
        item = line.published
        writer.writerow(
            [_safe(line.row), _safe(line.column), line.mean, line.sd, len(line.values), line.planned,
             item.value if item else None, item.verified if item else None, _safe(item.provenance) if item else None,
             line.difference, line.recovery, line.requested, line.sparsity, line.nonzero, line.macs, line.flops,
             *(mean for mean, _ in line.extra_columns),
             "; ".join(f"{v.name} {v.verdict}" for v in line.verdicts), " ".join(_safe(e.id) for e in line.entries)]
        )  # fmt: skip
    return out.getvalue()


def _safe(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def console() -> Console:
    """A console as wide as the terminal; a pipe or a log gets whole lines instead of rich's 80 columns."""
    from rich.console import Console

    there = Console(highlight=False)
    return there if there.is_terminal else Console(highlight=False, width=WIDE)


def to_terminal(summary: Summary, width: int = WIDE) -> list[object]:
    """Things for rich's console to print, in order. A narrow terminal gets the columns that fit."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    names = headers(summary)
    shown = [number for number in columns(summary) if width >= NARROW or names[number] not in SPARED]
    grid = Grid(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        title=Text(title(summary), style="bold"),
        title_justify="left",
        padding=(0, 1),
    )
    for number in shown:
        justify: Literal["left", "right"] = "right" if NUMBERS <= number < len(names) - len(LAST) else "left"
        whole = number in (1, 2, 3, len(names) - 1)
        grid.add_column(names[number], justify=justify, overflow="fold", no_wrap=whole)
    for line in summary.lines:
        ids = (
            line.entries[0].id + (f" +{len(line.entries) - 1}" if len(line.entries) > 1 else "")
            if line.entries
            else NONE
        )
        marks = " ".join(f"{v.name}{MARKS[v.verdict]}" for v in line.verdicts) or NONE
        cells = [*texts(line, summary.table), marks, ids]
        grid.add_row(*(Text(cells[number]) for number in shown))
    parts: list[object] = [grid, *(Text(note, style="dim") for note in notes(summary))]
    if summary.verdicts:
        claims = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
        names, *told = claim_rows(summary)
        for header in names:
            claims.add_column(header or "claim", overflow="fold")
        for v, row in zip(summary.verdicts, told, strict=True):
            at = names.index("verdict")
            claims.add_row(*(Text(cell, style=STYLES[v.verdict] if n == at else "") for n, cell in enumerate(row)))
        parts.append(claims)
    return parts
