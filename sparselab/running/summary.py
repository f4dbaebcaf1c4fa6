"""The summary of a finished cell, to be quoted."""

from __future__ import annotations

import shlex
from typing import Any

from sparselab.running.engine import ENGINES


def lines(record: dict[str, Any], typed: list[str]) -> list[tuple[str, str]]:
    """(label, text) rows of the summary. ``typed``: the overrides of the command that reproduces it."""
    name = record["config"]["engine"]["name"]
    rows = ENGINES[name].summary(record)
    rows.append(("seconds", f"{record['seconds']:.1f}"))
    rows.append(("again", shlex.join(["python", "run.py", *typed, "force=true"])))
    return rows


def show(record: dict[str, Any], typed: list[str]) -> None:
    """Print the summary as a small table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    *rows, (label, again) = lines(record, typed)
    for name, text in rows:
        table.add_row(name, Text(text))  # not markup: loss=[distill] has brackets of its own
    console = Console(highlight=False)
    console.print(table)
    width = max(len(name) for name, _ in rows) + 2
    print(f"{label:<{width}}{again}")  # never wrapped: it is there to be copied
