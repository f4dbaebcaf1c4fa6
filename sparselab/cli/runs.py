"""``sparselab runs``: the runs of a folder, finished and under way."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparselab.core.errors import did_you_mean, refuse, short
from sparselab.experiments.comparison.chosen import chosen
from sparselab.experiments.comparison.found import STATES, Run, runs_in, settings, span

USAGE = """usage: sparselab runs [ID ...] [key=value[,value] ...] [status=STATE] [sort=COLUMN] [metric=NAME] [format=csv]
                      [runs_dir=runs]

Each run of a folder: finished, failed, running (at which update, where, what is left), stopped, or with a broken record.
key=value keeps those whose config says so (method=srste seed=0,1). sort is a metric, a key of the config, seconds or
status; sort=-test.accuracy turns it round. metric names the numbers to show, several with commas; by default the first
score on the test split."""
OWN = ("status", "sort", "metric", "format", "runs_dir")


def options(argv: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(the command's own options, the other words). ConfigError for one that is given twice or has no value."""
    found: dict[str, str] = {}
    rest = []
    for word in argv:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            refuse(short(word), "no such flag", "settings are written without dashes: sort=seconds")
        if not equals or key not in own:
            rest.append(word)
        elif key in found or not value:
            refuse(short(word), "is there twice" if key in found else "has no value", f"write {key}=… once")
        else:
            found[key] = value
    return found, rest


def folder_of(found: dict[str, str]) -> Path:
    """The runs folder that is asked for. ConfigError where it is none."""
    folder = Path(found.get("runs_dir", "runs"))
    if not folder.is_dir():
        refuse(f"runs_dir={short(str(folder))}", "there is no such folder", "name the folder with the runs")
    return folder


def run(argv: list[str]) -> int:
    """Print a line for each run; returns 0. Bad arguments are ConfigError."""
    if not {"-h", "--help"}.isdisjoint(argv):
        print(USAGE)
        return 0
    found, rest = options(argv, OWN)
    for key, words in (("status", STATES), ("format", ("terminal", "csv"))):
        if key in found and found[key] not in words:
            refuse(f"{key}={short(found[key])}", f"no such {key}", did_you_mean(found[key], words))
    folder = folder_of(found)
    runs = chosen(runs_in(folder), rest, folder)
    if "status" in found:
        runs = [one for one in runs if one.state == found["status"]]
    if "sort" in found:
        runs = in_order(runs, found["sort"])
    if not runs:
        refuse(f"runs_dir={short(str(folder))}", "holds no such run", "leave a filter out, or name another folder")
    metrics = found["metric"].split(",") if "metric" in found else usual(runs)
    show(runs, metrics, found.get("format", "terminal"))
    return 0


def usual(runs: Sequence[Run]) -> list[str]:
    """The score that most runs have first on the test split; none where no run has one."""
    heads = [key for one in runs for key in [*filter(_is_score, one.metrics)][:1]]
    return [max(dict.fromkeys(heads), key=heads.count)] if heads else []


def _is_score(key: str) -> bool:
    return key.startswith("test.") and key not in ("test.loss", "test.n") and not key.endswith("_se")


def in_order(runs: Sequence[Run], asked: str) -> list[Run]:
    """Runs by a metric, a key of their config, ``seconds`` or ``status``; those that have none come last."""
    key = asked.removeprefix("-")

    def value(one: Run) -> Any:
        if key == "status":
            return one.state
        if key == "seconds":
            return one.seconds
        return one.metrics.get(key, dict(settings(one.record.get("config", {}))).get(key))

    known = {"seconds", "status"}.union(*(one.metrics for one in runs))
    known = known.union(*(dict(settings(one.record.get("config", {}))) for one in runs))
    if key not in known:
        refuse(f"sort={short(asked)}", "no run has it", did_you_mean(key, sorted(known)))
    having = [one for one in runs if value(one) is not None]
    numbers = all(isinstance(value(one), int | float) for one in having)
    ordered = sorted(having, key=lambda one: value(one) if numbers else str(value(one)), reverse=asked.startswith("-"))
    return [*ordered, *(one for one in runs if value(one) is None)]


def show(runs: Sequence[Run], metrics: Sequence[str], form: str) -> None:
    """Print the runs as a table or as CSV, and a line about all of them."""
    said = [one.said() for one in runs if one.record]
    common = set.intersection(*map(set, said)) if len(said) > 1 else set()
    head = ["id", "status", *metrics, "seconds", "what tells it from the others"]
    rows = []
    for one in runs:
        numbers = [f"{one.metrics[key]:.6g}" if key in one.metrics else "" for key in metrics]
        took = "" if one.seconds is None else f"{one.seconds:.1f}" if form == "csv" else span(one.seconds)
        own = " ".join(text for text in one.said() if text not in common) or (one.note if not one.record else "")
        note = f" — {one.note}" if one.record and one.note else ""
        rows.append([one.id, one.state, *numbers, took, own + note])
    if form == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([head, *rows])
        return
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    from sparselab.experiments.tables.render import console

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
    for number, name in enumerate(head):
        grid.add_column(name, justify="right" if 2 <= number < len(head) - 1 else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    console().print(grid)
    counts = [f"{sum(one.state == state for one in runs)} {state}" for state in STATES]
    print(f"{len(runs)} runs: " + ", ".join(text for text in counts if not text.startswith("0 ")))
    if common:
        print(f"all: {' '.join(text for text in said[0] if text in common)}")
