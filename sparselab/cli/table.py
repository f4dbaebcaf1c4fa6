"""``sparselab table paper=<slug> tier=<tier>``: a paper's table from records alone."""

from __future__ import annotations

import sys

from sparselab.cli.keys import Key, need_records, parse
from sparselab.core.errors import refuse, short

KEYS = {
    "paper": Key(None, "a paper's slug, or slug/table for one of several tables"),
    "tier": Key(None, "the size of the table", ("smoke", "cpu", "gpu", "paper")),
    "seeds": Key("", "seeds=+5: the tier's seeds and five more; seeds=3,4: these (shown, not written)"),
    "format": Key("terminal", "what to print", ("terminal", "markdown", "csv")),
    "write": Key("false", "also write records, table and figure under results_dir", ("true", "false")),
    "runs_dir": Key("runs", "the folder with the runs", folder="there"),
    "results_dir": Key("results", "the folder with the kept results", folder="new"),
}


def run(argv: list[str]) -> int:
    """Print the table; returns 0. Bad arguments and tables are ConfigError."""
    asked = parse("table", KEYS, argv)
    if asked is None:
        return 0
    if asked["write"] == "false":
        need_records(asked, "runs_dir", "results_dir")
    from sparselab.experiments.tables.load import load
    from sparselab.experiments.tables.results import gather, write
    from sparselab.experiments.tables.seeds import with_seeds
    from sparselab.experiments.tables.summary import summarise

    tier, runs_dir, results_dir = asked["tier"], asked.path("runs_dir"), asked.path("results_dir")
    if asked["seeds"] and asked["write"] == "true":
        fix = f"write them into the table's tiers.{tier}.seeds, or leave out write=true"
        refuse(short(f"seeds={asked['seeds']}"), "what is kept has the seeds that the tier plans", fix)
    tables = load(asked["paper"], search_path=asked.config_dir)
    offered = [table for table in tables if tier in table.tiers] or tables  # none: the first one says which there are
    if asked["seeds"]:
        offered = [with_seeds(table, tier, asked["seeds"]) for table in offered]
    for table in offered:
        entries = gather(results_dir, runs_dir, table, tier, warn=_warn, search_path=asked.config_dir)
        _print(summarise(table, tier, entries), asked["format"])
        if asked["write"] == "true":
            for path in write(results_dir, table, tier, entries, runs_dir=runs_dir, search_path=asked.config_dir):
                print(path, file=sys.stderr)
    return 0


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _print(summary: object, form: str) -> None:
    from sparselab.experiments.tables import render

    if form == "terminal":
        console = render.console()
        for part in render.to_terminal(summary, console.width):  # type: ignore[arg-type]
            console.print(part)
    else:
        print({"markdown": render.to_markdown, "csv": render.to_csv}[form](summary), end="")  # type: ignore[arg-type]
