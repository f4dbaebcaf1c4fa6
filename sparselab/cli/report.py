"""``sparselab report``: every table, figure and record as one static HTML file."""

from __future__ import annotations

import sys
from pathlib import Path

from sparselab.tables.arguments import Key, parse

KEYS = {
    "out": Key("report.html", "the file to write"),
    "runs_dir": Key("runs", "the folder with the runs"),
    "results_dir": Key("results", "the folder with the kept results"),
}


def run(argv: list[str]) -> int:
    """Write the report and print its path; returns 0. Bad arguments and tables are Refused."""
    asked = parse("report", KEYS, argv)
    if asked is None:
        return 0
    from sparselab.store import atomic
    from sparselab.tables.report import html
    from sparselab.tables.results import ledger

    runs_dir = Path(asked["runs_dir"])
    summaries = ledger(Path(asked["results_dir"]), runs_dir, warn=lambda line: print(line, file=sys.stderr))
    print(atomic.write_text(asked["out"], html(summaries)))
    return 0
