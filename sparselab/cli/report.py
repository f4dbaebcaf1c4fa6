"""``sparselab report``: every table, figure and record as one static HTML file."""

from __future__ import annotations

import os
import sys

from sparselab.cli.keys import Key, need_records, parse
from sparselab.core.errors import refuse, short
from sparselab.core.memo import uncollected

KEYS = {
    "out": Key("report.html", "the file to write"),
    "runs_dir": Key("runs", "the folder with the runs", folder="there"),
    "results_dir": Key("results", "the folder with the kept results", folder="new"),
}


def run(argv: list[str]) -> int:
    """Write the report and print its path; returns 0. Bad arguments and tables are ConfigError."""
    asked = parse("report", KEYS, argv)
    if asked is None:
        return 0
    need_records(asked, "runs_dir", "results_dir")
    out = asked.path("out")
    there = next(path for path in out.absolute().parents if path.exists())
    if out.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        problem = "is a folder" if out.is_dir() else "cannot be written there"
        refuse(f"out={short(asked['out'])}", problem, "name a file, such as out=report.html")
    from sparselab.experiments.tables.entries import folder
    from sparselab.experiments.tables.pictures import Picture
    from sparselab.experiments.tables.report import page
    from sparselab.experiments.tables.sections import sections
    from sparselab.experiments.tables.summary import Summary
    from sparselab.storage import atomic

    runs_dir, results_dir = asked.path("runs_dir"), asked.path("results_dir")

    def find(summary: Summary, picture: Picture) -> bytes | None:
        """The picture's bytes, from beside the table or from the run."""
        kept = folder(results_dir, summary.table, summary.tier) / picture.name
        return picture.sound(kept) or picture.sound(runs_dir / picture.entry.id / picture.source)

    with uncollected():
        found = sections(
            results_dir, runs_dir, find, search_path=asked.config_dir, warn=lambda line: print(line, file=sys.stderr)
        )
    print(atomic.write_text(out, page(found)))
    return 0
