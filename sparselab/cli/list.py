"""``sparselab list``: the ledger, a row per paper's table with its verdicts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.cli.keys import Key, need_records, parse
from sparselab.core.errors import Issue

if TYPE_CHECKING:
    from sparselab.experiments.tables.summary import Summary

KEYS = {
    "format": Key("terminal", "what to print", ("terminal", "markdown")),
    "write": Key("false", "also write README.md under results_dir", ("true", "false")),
    "results_dir": Key("results", "the folder with the kept results", folder="new"),
}


def run(argv: list[str]) -> int:
    """Print the ledger of all papers; returns 0. Bad arguments and tables are ConfigError."""
    asked = parse("list", KEYS, argv)
    if asked is None:
        return 0
    if asked["write"] == "false":
        need_records(asked, "results_dir")
    from sparselab.experiments.tables import render
    from sparselab.experiments.tables.ledger import to_markdown, to_terminal
    from sparselab.experiments.tables.results import LEDGER, ledger

    results_dir = asked.path("results_dir")
    summaries = ledger(results_dir, search_path=asked.config_dir)
    for line in strangers(results_dir, summaries):
        print(line, file=sys.stderr)
    if asked["format"] == "markdown":
        print(to_markdown(summaries), end="")
    else:
        render.console().print(to_terminal(summaries))
    if asked["write"] == "true":
        from sparselab.storage import atomic

        results_dir.mkdir(parents=True, exist_ok=True)
        path = atomic.write_text(results_dir / LEDGER, to_markdown(summaries))
        print(path, file=sys.stderr)
    return 0


def strangers(results_dir: Path, summaries: Sequence[Summary]) -> list[str]:
    """Return a line for each folder of results whose paper is not among those that are listed."""
    from sparselab.experiments.tables.entries import RECORDS

    known = {summary.table.paper for summary in summaries}
    found = sorted({path.relative_to(results_dir).parts[0] for path in results_dir.glob(f"*/**/{RECORDS}")} - known)
    fix = "write --config-dir FOLDER, the one that has its tables"
    return [str(Issue(f"{results_dir.name}/{slug}", "is of no paper here: not listed", fix)) for slug in found]
