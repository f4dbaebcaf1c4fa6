"""Markdown, CSV and the terminal. The same records give the same bytes: no dates, no machine, fixed order."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sparselab.tables.pictures import pictures
from sparselab.tables.results import folder
from sparselab.tables.schema import Table
from sparselab.tables.summary import Line, Summary

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
"""What a terminal of less than NARROW columns does without."""
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
    return [*HEADERS, *(column.label for column in summary.table.beside), *LAST]


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
            for column, (mean, sd) in zip(table.beside, line.beside, strict=True)
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


def title(summary: Summary) -> str:
    source = summary.table.source
    return f"{source.title} ({source.year}), {source.table}, tier {summary.tier}"


def notes(summary: Summary) -> list[str]:
    """What a reader has to know, as sentences."""
    table, tier = summary.table, summary.table.tiers[summary.tier]
    found = [
        f"{summary.done} of {summary.planned} runs. {table.metric.label}, {table.metric.better} is better; "
        f"read {table.metric.read}."
    ]
    if summary.data:
        found.append(f"Data: {', '.join(summary.data)}.")
    if summary.mixed:
        found.append(f"Not every record saw the same {', '.join(summary.mixed)}: the public set changed in between.")
    if table.pool != "table" and table.claims:
        found.append(
            f"A claim's spread is pooled over the cells of the same {table.pool.rstrip('s')}, not over the table."
        )
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
    lines = [f"# {escape(title(summary))}", "", f"arXiv {summary.table.source.arxiv}", ""]
    lines += [f"- {escape(note)}" for note in notes(summary)]
    rows, shown = [], columns(summary)
    for line in summary.lines:
        ids = " ".join(f"`{escape(e.id)}`" for e in line.entries) or NONE
        row = [*map(escape, texts(line, summary.table)), verdicts(line), ids]
        rows.append([row[number] for number in shown])
    names = headers(summary)
    align = "ll" + "r" * (len(names) - 4) + "ll"
    lines += ["", *_markdown_table([escape(names[n]) for n in shown], rows, "".join(align[n] for n in shown))]
    if summary.verdicts:
        claims = [[v.name, escape(v.claim.text), f"**{v}**", escape(v.evidence)] for v in summary.verdicts]
        lines += ["", "## Claims", "", *_markdown_table(("", "the paper says", "verdict", "evidence"), claims, "llll")]
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
    """Where the published numbers of this tier were read, one line per source."""
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


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
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
         *(_safe(column.label) for column in summary.table.beside), "verdicts", "records"]
    )  # fmt: skip
    for line in summary.lines:
        item = line.published
        writer.writerow(
            [_safe(line.row), _safe(line.column), line.mean, line.sd, len(line.values), line.planned,
             item.value if item else None, item.verified if item else None, _safe(item.provenance) if item else None,
             line.difference, line.recovery, line.requested, line.sparsity, line.nonzero, line.macs, line.flops,
             *(mean for mean, _ in line.beside),
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
        for header in ("claim", "the paper says", "verdict", "evidence"):
            claims.add_column(header, overflow="fold")
        for v in summary.verdicts:
            claims.add_row(v.name, Text(v.claim.text), Text(str(v), style=STYLES[v.verdict]), Text(v.evidence))
        parts.append(claims)
    return parts


LEDGER_HEADERS = ("paper", "title", "source", "tier", "runs", "holds", "fails", "inconclusive", "not run")


def ledger_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """A row for each table and tier that has a record, and one for each table that has none at all."""
    rows = []
    for table in dict.fromkeys(s.table.output for s in summaries):
        mine = [s for s in summaries if s.table.output == table]
        shown = [s for s in mine if s.done or any(line.failed for line in s.lines)]
        head = [table, mine[0].table.source.title, f"arXiv {mine[0].table.source.arxiv}, {mine[0].table.source.table}"]
        if not shown:
            rows.append([*head, NOT_RUN, "0", "0", "0", "0", str(len(mine[0].table.claims))])
        for summary in shown:
            counts = [str(summary.count(kind)) for kind in ("holds", "fails", "inconclusive", "not run")]
            rows.append([*head, summary.tier, f"{summary.done} of {summary.planned}", *counts])
    return rows


def ledger_markdown(summaries: Sequence[Summary]) -> str:
    """``results/README.md``."""
    lines = [
        "# Results",
        "",
        "Every number below is rendered from the records beside it; nothing here is written by hand. A claim holds or",
        "fails when the seeds show it at the 5 % level (Holm over the table's claims, spread pooled over its cells,",
        "or over its columns or rows where methods scatter differently; 3 seeds at least, 5 for a headline claim); otherwise",
        "it is inconclusive. An error *seed by seed* pairs runs that share a seed; it stands beside the other and decides",
        "nothing.",
        "",
    ]
    links = {(s.table.output, s.tier): folder(Path(), s.table, s.tier).as_posix() for s in summaries}
    rows = []
    for row in ledger_rows(summaries):
        link = links.get((row[0], row[3]))
        shown = [escape(cell) for cell in row]
        if link:
            shown[3] = f"[{row[3]}]({link}/table.md)"
        rows.append(shown)
    return "\n".join([*lines, *_markdown_table(LEDGER_HEADERS, rows, "llllrrrrr")]) + "\n"


def ledger_terminal(summaries: Sequence[Summary]) -> object:
    """The ledger for rich's console."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
    for number, header in enumerate(LEDGER_HEADERS):
        grid.add_column(header, justify="right" if number >= 4 else "left", overflow="fold")
    for row in ledger_rows(summaries):
        grid.add_row(*map(Text, row))
    return grid
