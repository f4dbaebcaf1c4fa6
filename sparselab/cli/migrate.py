"""``sparselab migrate [FOLDER …]``: records of an older sparselab, brought to today's names and ids."""

from __future__ import annotations

import sys
from pathlib import Path

from sparselab.cli.arguments import Outside
from sparselab.core.errors import Issues, refuse, short

USAGE = (
    "sparselab migrate [FOLDER …] [--outdated] [--config-dir FOLDER] [plugins=[FILE]]"
    "     a runs folder, or one with kept results; by default runs and results"
)
MORE = """\
  --outdated  also records whose cell has another id today for another reason than its names (a method's newer version,
              data that is not here): they keep their id
  --config-dir, plugins   what the records' cells took from outside, as for the command that ran them"""
USUAL = ("runs", "results")


def run(argv: list[str]) -> int:
    """Rewrite old records; returns 0, or 1 where one had to be left as it is. Bad arguments are ConfigError.

    Nothing runs again and no number changes. It may be stopped and started at any time.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        print(f"usage: {USAGE}\n{MORE}")
        return 0
    issues = Issues()
    outside = Outside.of(argv, issues)
    issues.raise_if_any()
    outside.announce()
    outdated = "--outdated" in outside.rest
    argv = [word for word in outside.rest if word != "--outdated"]
    for word in argv:
        if not Path(word).is_dir():
            refuse(f"migrate {short(word)}", "there is no such folder", f"write {USAGE.partition('  ')[0]}")
    folders = [Path(word) for word in argv or USUAL if Path(word).is_dir()]
    if not folders:
        refuse("migrate", "neither runs nor results is here", "name a folder with runs or results")
    from sparselab.experiments.tables.migrate import results
    from sparselab.running.migrate import Count, Lineage, runs

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    lineage, total = Lineage(outside.config_dir), Count()
    for folder in folders:
        count = runs(folder, lineage, say, outdated) + results(folder, lineage, say, outdated)
        print(f"{folder}: {count}")
        total += count
    return int(total.left > 0)
