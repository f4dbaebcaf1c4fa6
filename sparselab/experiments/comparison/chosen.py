"""Runs chosen on a command line: by id, by what their config says, by their state [no torch]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparselab.config.overrides import said
from sparselab.core.errors import Issues, did_you_mean, refuse, short, spell
from sparselab.experiments.comparison.found import Run, runs_in, settings


def chosen(runs: Sequence[Run], words: Sequence[str], runs_dir: Path) -> list[Run]:
    """The runs that ``words`` ask for, in the order given: ids or beginnings of them, folders, ``key=value[,value]``.

    Ids come together with what the other words leave; without any word, all runs. ConfigError for an id that is not there
    or is several, and for a key or a value that no run has.
    """
    filters, names = [word for word in words if "=" in word], [word for word in words if "=" not in word]
    issues = Issues()
    out: list[Run] = []
    for name in names:
        with issues.collect():
            out.append(_named(runs, name, runs_dir))
    if filters or not names:
        left = list(runs)
        for text in filters:
            with issues.collect():
                left = _filtered(left, runs, text)
        out += [run for run in left if run not in out]
    issues.raise_if_any()
    return out


def _named(runs: Sequence[Run], name: str, runs_dir: Path) -> Run:
    path = Path(name)
    if path.parent != Path() and path.is_dir():
        found = [run for run in runs_in(path.absolute().parent) if run.id == path.name]
    else:
        found = [run for run in runs if run.id.startswith(name)]
    if len(found) != 1:
        problem = "no run begins so" if not found else f"is the beginning of {len(found)} ids"
        refuse(short(name, 40), f"{problem} in {short(str(runs_dir), 40)}", "sparselab runs lists them")
    return found[0]


def _filtered(left: Sequence[Run], runs: Sequence[Run], text: str) -> list[Run]:
    key, _, value = text.partition("=")
    wanted = {_spelled(item) for item in _values(value)}
    known = {name for run in runs for name, _ in _all(run)}
    if key not in known:
        refuse(
            short(text), "is said of no run here", did_you_mean(key, sorted(known)) if known else "run something first"
        )
    there = {run.id: {_spelled(item) for name, item in _all(run) if name == key} for run in runs}
    values = set[str]().union(*there.values())
    if strange := sorted(wanted - values):
        refuse(short(f"{key}={strange[0]}"), "no run here says so", did_you_mean(strange[0], sorted(values)))
    return [run for run in left if there[run.id] & wanted]


def _all(run: Run) -> list[tuple[str, Any]]:
    return list(settings(run.record.get("config", {})))


def _values(text: str) -> list[Any]:
    """Values between commas; a list in brackets is one value."""
    if text.startswith(("[", "{")):
        return [said(f"x={text}")[1]]
    return [said(f"x={item}")[1] if item else item for item in text.split(",")]


def _spelled(value: Any) -> str:
    return spell(float(value)) if type(value) in (int, float) else spell(value)
