"""``sparselab compare``: configurations side by side, with what differs between them, over their seeds."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from sparselab.cli.runs import folder_of, options
from sparselab.core.errors import did_you_mean, refuse, short
from sparselab.experiments.comparison.chosen import chosen
from sparselab.experiments.comparison.compare import differing, groups, metric_of
from sparselab.experiments.comparison.found import runs_in
from sparselab.experiments.comparison.table import MOST, NUMBERS, rows

USAGE = """usage: sparselab compare [ID ...] [key=value[,value] ...] [metric=NAME] [format=csv] [runs_dir=runs]

Finished runs that differ in the seed alone are one line: what tells it from the others, mean ± sd of a metric over seeds
(n), and its difference to the first line over the seeds that both have, with the p value of a paired t test (two-sided;
Holm over the lines). Runs are named by id (its beginning is enough), or by what their config says: method=srste,ste
sparsity=2:4."""
OWN = ("metric", "format", "runs_dir")
MAIN = ("method", "sparsity", "model", "dataset")


def run(argv: list[str]) -> int:
    """Print the comparison; returns 0. Bad arguments, and nothing to compare, are ConfigError."""
    if not {"-h", "--help"}.isdisjoint(argv):
        print(USAGE)
        return 0
    asked, rest = options(argv, OWN)
    form = asked.get("format", "terminal")
    if form not in ("terminal", "csv"):
        refuse(f"format={short(form)}", "no such format", did_you_mean(form, ("terminal", "csv")))
    folder = folder_of(asked)
    runs = chosen(runs_in(folder), rest, folder)
    found = groups(runs)
    if not found:
        refuse("compare", f"of {len(runs)} runs none is finished", "sparselab runs says how far they are")
    if len(found) > MOST:
        refuse("compare", f"{len(found)} configurations are too many", "name some, as in method=srste,ste")
    metric = metric_of(found, asked.get("metric", ""))
    table = rows(found, metric)
    if form == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(table)
    else:
        _print(table)
        if unfinished := len(runs) - sum(len(group.runs) for group in found):
            print(f"{unfinished} of {len(runs)} runs are not finished, and left out")
        apart = differing(found)
        if shared := [
            f"{key}={found[0].settings[key]}" for key in MAIN if key in found[0].settings and key not in apart
        ]:
            print(f"all: {' '.join(shared)}")
    return 0


def _print(table: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    from sparselab.experiments.tables.render import console

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
    for number, name in enumerate(table[0]):
        grid.add_column(name, justify="right" if number >= len(table[0]) - NUMBERS else "left", overflow="fold")
    for row in table[1:]:
        grid.add_row(*map(Text, row))
    console().print(grid)
