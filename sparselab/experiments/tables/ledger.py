"""The ledger: a row for each table and tier, what all of them come to, and the claims that are open or judged anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparselab.experiments.tables.claims import POWER, RULE, SEEDS
from sparselab.experiments.tables.entries import folder
from sparselab.experiments.tables.render import NONE, NOT_RUN, escape, kind, markdown_table
from sparselab.experiments.tables.summary import Summary

VERDICTS = ("holds", "fails", "inconclusive", "not run")
HEADERS = ("paper", "title", "source", "tier", "runs", *VERDICTS, "exact: hold", "reported: hold")
APART = ("exact", "reported")
"""Bases of claims that are counted apart from the empirical ones."""


def rows_of(summaries: Sequence[Summary]) -> list[list[str]]:
    """A row for each table and tier that has a record, and one for each table that has none at all.

    The verdicts are those of empirical claims; of the others the row says how many of them hold.
    """
    return rows_by_table([row_of(summary) for summary in summaries])


@dataclass(frozen=True)
class Row:
    """The words of the ledger about a table at a tier. seen: it has a record; one of none says so of the whole table."""

    texts: list[str]
    seen: bool


def rows_by_table(rows: Sequence[Row]) -> list[list[str]]:
    """The texts of the rows that are shown: of a table without any record the first, as that of the whole table."""
    found = []
    for table in dict.fromkeys(row.texts[0] for row in rows):
        mine = [row for row in rows if row.texts[0] == table]
        found += [row.texts for row in mine if row.seen] or [mine[0].texts]
    return found


def row_of(summary: Summary) -> Row:
    """The row of a table at a tier."""
    source = summary.table.source
    head = [summary.table.output, source.title, f"{source.cited}, {source.table}"]
    if not summary.done and not any(line.failed for line in summary.lines):
        return Row([*head, NOT_RUN, "0", "0", "0", "0", str(len(summary.table.claims)), NONE, NONE], False)
    counts = [str(summary.count(verdict)) for verdict in VERDICTS]
    apart = [_share(summary, basis) for basis in APART]
    return Row([*head, summary.tier, f"{summary.done} of {summary.planned}", *counts, *apart], True)


def _share(summary: Summary, basis: str) -> str:
    of = sum(v.claim.basis == basis for v in summary.verdicts)
    return f"{summary.count('holds', basis)} of {of}" if of else NONE


def _totals(summaries: Sequence[Summary]) -> list[list[str]]:
    """For each tier the verdicts of all its tables that have records, by how their claims count."""
    rows = []
    for tier in dict.fromkeys(s.tier for s in summaries if s.done):
        found = [v for s in summaries if s.tier == tier and s.done for v in s.verdicts]
        kinds = {basis: [v for v in found if v.claim.basis == basis] for basis in ("empirical", *APART)}
        kinds["empirical, headlines only"] = [v for v in kinds["empirical"] if v.claim.headline]
        for name, verdicts in kinds.items():
            if verdicts:
                rows.append([tier, name, *(str(sum(v.verdict == verdict for v in verdicts)) for verdict in VERDICTS)])
    return rows


def _open(summaries: Sequence[Summary]) -> list[list[str]]:
    """Claims without a verdict at tiers that plan enough seeds for one."""
    return [
        [s.table.output, s.tier, v.name, v.claim.text, kind(v), str(v.seeds), v.needs or NONE]
        for s in summaries
        if len(s.table.tiers[s.tier].seeds) >= SEEDS
        for v in s.verdicts
        if v.verdict == "inconclusive"
    ]


def _changed(summaries: Sequence[Summary]) -> list[list[str]]:
    return [
        [s.table.output, s.tier, v.name, v.claim.text, v.earlier, str(v)]
        for s in summaries
        for v in s.verdicts
        if v.earlier
    ]


TEXT = f"""\
Every number below is rendered from the records beside it; nothing here is written by hand.

A claim is judged by **rule {RULE}**. Each seed gives the claim's contrast once; a one-sided t test of these values says
whether it holds or is violated, at the 5 % level (Holm over the claims of a table and tier). A claim of several parts
holds when all of them do and fails when any one is violated; a mean holds only while none of its halves is shown to go
the other way. A verdict takes {SEEDS} seeds that have all of the claim's cells, a complete tier has 10 at cpu; otherwise,
and where the seeds do not show it, the claim is inconclusive. Numbers that no seed can change are compared, not tested.
[Size and power](../docs/verdicts.md) of the rule are simulated.

- **The rule was chosen after results were seen** (of seeds 0 to 4 at most). Rule 1 pooled the spread over a table's cells
  as if they were independent and scattered alike, and neither is so. Its verdicts on the records of its time stand beside
  those of rule {RULE} where they differ, below and in each table; claims that were reworded since have none.
- **Seeds after those are new.** None was dropped, and no table stopped, or went on, because of a verdict.
- **Some conclusions are conditional**: where all seeds share one start or teacher, the table says so.
- **Empirical claims** are what is counted. *Exact* ones (arithmetic, a theorem about this code, counts of parameters) and
  those that are only *reported* (not the paper's, or passed by any method beside a claim that tells them apart) are
  counted apart.
"""


def to_markdown(summaries: Sequence[Summary]) -> str:
    """``results/README.md``."""
    links = {(s.table.output, s.tier): folder(Path(), s.table, s.tier).as_posix() for s in summaries}
    rows = []
    for row in rows_of(summaries):
        link = links.get((row[0], row[3]))
        shown = [escape(cell) for cell in row]
        if link:
            shown[3] = f"[{row[3]}]({link}/table.md)"
        rows.append(shown)
    lines = ["# Results", "", TEXT]
    if totals := _totals(summaries):
        lines += [*markdown_table(("tier", "claims", *VERDICTS), totals, "llrrrr"), ""]
    lines += markdown_table(HEADERS, rows, "llllrrrrrrr")
    claim = ("table", "tier", "claim", "the paper says")
    if changed := _changed(summaries):
        head = [*claim, "rule 1", f"rule {RULE}"]
        lines += ["", "## Verdicts that rule 1 gave otherwise", "", *_table_of(head, changed)]
    if undecided := _open(summaries):
        head = [*claim, "kind", "seeds", f"seeds for {100 * POWER:.0f} % power"]
        lines += ["", "## Inconclusive claims", "", *_table_of(head, undecided)]
    return "\n".join(lines) + "\n"


def _table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table(head, [[*map(escape, row)] for row in rows], "l" * len(head))


def to_terminal(summaries: Sequence[Summary]) -> object:
    """The ledger for rich's console."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
    for number, header in enumerate(HEADERS):
        grid.add_column(header, justify="right" if number >= 4 else "left", overflow="fold")
    for row in rows_of(summaries):
        grid.add_row(*map(Text, row))
    return grid
