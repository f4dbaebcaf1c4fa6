"""`sparselab check <overrides>`: what would run, and every problem that can be foreseen.

No torch, except for one cell of a network whose layers only building it tells.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sparselab.cli.arguments import Arguments, parse
from sparselab.cli.estimate import estimate
from sparselab.config.trees import TABLE
from sparselab.core.errors import ConfigError, Issues, refuse, short
from sparselab.core.memo import sharing
from sparselab.inputs.data import hub
from sparselab.running.engine import ENGINES

T = TypeVar("T")

USAGE = """usage: sparselab check [-m] [--config-dir FOLDER] [group=member ...] [key=value ...]

What `python run.py` with the same arguments would do: the cell, its id, steps, cost, and every problem it can foresee.
With -m, or paper=… tier=…: a line per cell, what all of them cost, and the seeds that inconclusive claims would take, as far as
the records in runs_dir and in results_dir=… (results) decide them.
`python run.py --help` shows the groups."""


def run(argv: list[str]) -> int:
    """Print the plan of one cell, or a line per cell of a sweep; ConfigError (exit 2) with a line per fault."""
    from sparselab.cli.application import plans_of
    from sparselab.running.planning import plan_of

    refused: ConfigError | None = None
    asked = parse(argv)
    results_dir = kept_in(asked)
    if asked.help:
        print(USAGE)
    elif asked.sweep or {TABLE, "tier"} <= {text.partition("=")[0] for text in asked.overrides}:
        plans, refused = despite_the_hub(lambda: plans_of(asked))
        refused = traced(plans) or refused
        print("\n".join([*lines(plans), *undecided(asked, plans, results_dir)]))
    else:
        plan, refused = despite_the_hub(lambda: plan_of(asked.overrides, asked.config_dir))
        refused = traced([plan]) or refused
        for label, text in rows(plan):
            print(f"{label:<16}{text}")
    if refused is not None:
        raise refused
    sys.stdout.flush()
    return 0


def despite_the_hub(plan: Callable[[], T]) -> tuple[T, ConfigError | None]:
    """Plan; where only data that the hub has are missing, and it is off, plan without them and say so beside the plan.

    What a cell costs is known without its data.
    """
    try:
        return plan(), None
    except ConfigError as refused:
        if not hub.offline():
            raise
        with hub.as_if_on():
            try:
                return plan(), refused
            except ConfigError:
                raise refused from None


def traced(plans: list[Any]) -> ConfigError | None:
    """Complete plans with what only building their networks tells; return what of that would be refused then."""
    issues = Issues()
    with sharing():
        for plan in plans:
            with issues.collect():
                ENGINES[plan.config["engine"]["name"]].trace(plan)
    return ConfigError(dict.fromkeys(issues.found)) if issues.found else None


def lines(plans: list[Any]) -> list[str]:
    """A line per cell, those that others need first, and one about all of them."""
    cells: dict[str, Any] = {}
    for plan in plans:
        _needed(plan, cells)
    shared = len(cells.keys() - {plan.id for plan in plans})
    cells |= {plan.id: plan for plan in plans}
    missing = [plan for plan in cells.values() if state(plan) == "to run"]
    out = [f"{plan.id} ({state(plan)})  {shlex.join(plan.overrides)}" for plan in cells.values()]
    notes = f", {shared} of them for others" if shared else ""
    total = f"{len(cells)} cells{notes}: {len(cells) - len(missing)} finished, {len(missing)} to run"
    if missing:
        if steps := sum(plan.steps for plan in missing):
            total += f" · {steps:,} updates"
        if all(plan.work for plan in missing):
            total += f" · {estimate(missing)}"
    return [*out, total]


def _needed(plan: Any, cells: dict[str, Any]) -> None:
    """Add the cells that a plan needs, and those that they need, each before whoever needs it."""
    for parent in plan.parent_plans:
        if parent.id not in cells:
            _needed(parent, cells)
            cells[parent.id] = parent


def kept_in(asked: Arguments) -> Path:
    """Take ``results_dir=…``, which is no part of a cell, out of the overrides; return the folder."""
    word = "results_dir="
    named = [text.removeprefix(word) for text in asked.overrides if text.startswith(word)]
    asked.overrides = [text for text in asked.overrides if not text.startswith(word)]
    if named and not Path(named[-1]).is_dir():
        refuse(short(f"{word}{named[-1]}"), "there is no such folder", "correct the path, or leave it out")
    return Path(named[-1] if named else "results")


def undecided(command: Arguments, plans: list[Any], results_dir: Path) -> list[str]:
    """A line for each claim that a table's records, kept or in the runs folder, leave inconclusive."""
    from sparselab.experiments.sweeps import cells
    from sparselab.experiments.tables.claims import POWER
    from sparselab.experiments.tables.results import gather
    from sparselab.experiments.tables.summary import summarise

    asked, out = cells.read(command.overrides, command.config_dir), []
    for table in asked.tables:
        assert asked.tier
        runs_dir = Path(plans[0].config["runs_dir"]) if plans else None
        entries = gather(results_dir, runs_dir, table, asked.tier, search_path=command.config_dir)
        for v in summarise(table, asked.tier, entries).verdicts:
            if v.verdict == "inconclusive":
                takes = (
                    f"{100 * POWER:.0f} % power would take {v.needs}"
                    if v.needs
                    else "nothing is known of its spread yet"
                )
                out.append(f"{table.output} {v.name} {v}: {takes} — {v.claim.text}")
    return out


def state(plan: Any) -> str:
    """Say if the cell has its record."""
    from sparselab.experiments.sweeps.state import done

    return "finished" if done(plan.folder, plan.id) else "to run"


def rows(plan: Any) -> list[tuple[str, str]]:
    """(label, text) lines about a plan."""
    out = [("cell", f"{plan.id} ({state(plan)}, {plan.folder})"), *plan.facts]
    if plan.work:
        out.append(("cost", estimate([plan])))
    shown: dict[str, Any] = {plan.id: plan}
    out += tree(plan, shown)
    missing = [one for one in shown.values() if state(one) == "to run"]
    if len(shown) > 1 and missing and all(one.work for one in missing):
        out.append(("cost of all", f"{estimate(missing)}, {len(missing)} of {len(shown)} cells to run"))
    return out + [("note", note) for note in plan.notes]


def tree(plan: Any, shown: dict[str, Any], depth: int = 0) -> list[tuple[str, str]]:
    """A line for each cell that a plan starts from, under the one that needs it; what was ``shown`` before is not unfolded."""
    out = []
    plans = {parent.id: parent for parent in plan.parent_plans}
    for place, ref in plan.parents:
        parent, known = plans[ref.id], ref.id in shown
        shown[ref.id] = parent
        what = f"{place} = {ref.take or 'weights'}{f' at {ref.at}' if ref.at else ''} of {ref.id}"
        more = "as above" if known else f"{state(parent)}, {parent.size}"
        cost = f", {estimate([parent]).partition(' (')[0]}" if parent.work and not known else ""
        out.append(("phase", f"{'  ' * depth}{what} ({more}{cost})"))
        out += [] if known else tree(parent, shown, depth + 1)
    return out
