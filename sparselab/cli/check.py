"""`sparselab check <overrides>`: what would run, and every problem that can be foreseen. No torch."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from sparselab.cli.arguments import parse
from sparselab.cli.estimate import estimate
from sparselab.spec.overrides import TABLE

USAGE = """usage: sparselab check [-m] [--config-dir FOLDER] [group=member ...] [key=value ...]

What `python run.py` with the same arguments would do: the cell, its id, steps, cost, and every problem it can foresee.
With -m, or paper=… tier=…: a line per cell, and what all of them cost. `python run.py --help` shows the groups."""


def run(argv: list[str]) -> int:
    """Print the plan of one cell, or a line per cell of a sweep; Refused (exit 2) with a line per fault."""
    from sparselab.cli.application import plans_of
    from sparselab.planning import plan_of

    asked = parse(argv)
    if asked.help:
        print(USAGE)
    elif asked.sweep or {TABLE, "tier"} <= {text.partition("=")[0] for text in asked.overrides}:
        print("\n".join(lines(plans_of(asked))))
    else:
        for label, text in rows(plan_of(asked.overrides, asked.config_dir)):
            print(f"{label:<16}{text}")
    sys.stdout.flush()
    return 0


def lines(plans: list[Any]) -> list[str]:
    """A line per cell, those that others need first, and one about all of them."""
    cells: dict[str, Any] = {}
    for plan in plans:
        cells |= {needed.id: needed for needed in plan.first}
    shared = len(cells.keys() - {plan.id for plan in plans})
    cells |= {plan.id: plan for plan in plans}
    missing = [plan for plan in cells.values() if state(plan) == "to run"]
    out = [f"{plan.id} ({state(plan)})  {shlex.join(plan.overrides)}" for plan in cells.values()]
    notes = f", {shared} of them for others" if shared else ""
    total = f"{len(cells)} cells{notes}: {len(cells) - len(missing)} finished, {len(missing)} to run"
    if missing:
        total += f" · {sum(plan.steps for plan in missing):,} updates"
        if all(plan.account for plan in missing):
            total += f" · {estimate(missing[0], sum(plan.account['flops_train_dense'] for plan in missing))}"
    return [*out, total]


def state(plan: Any) -> str:
    """Whether the cell has its record."""
    from sparselab.sweeps.state import done

    return "finished" if done(plan.folder, plan.id) else "to run"


def rows(plan: Any) -> list[tuple[str, str]]:
    """(label, text) lines about a plan."""
    parts, account = plan.parts, plan.account
    data = parts.data
    out = [
        ("cell", f"{plan.id} ({state(plan)}, {plan.folder})"),
        ("method", f"{parts.method.name} · sparsity {parts.sparsity} · schedule {parts.schedule.name}"
                   f" · distribution {parts.distribution.name}"),
        ("data", f"{data.title or data.name}: {data.train:,} train, {data.val:,} val, {data.test:,} test"
                 f" ({data.source})"),
        ("updates", f"{plan.steps:,} of {parts.cell.trainer.batch_size} examples"),
    ]  # fmt: skip
    if account:
        kept = account["params_nonzero"]
        out.append(("parameters", f"{account['params']:,} → {kept:,} nonzero, {len(parts.layers)} sparse layers"))
        out.append(("MACs", f"{account['macs_dense']:,} → {account['macs']:,} per sample"))
        times = account["flops_train"] / account["flops_train_dense"]
        out.append(("training FLOPs", f"{account['flops_train']:.3e} ({times:.3f}x dense)"))
        out.append(("cost", estimate(plan)))
    out += [("note", note) for note in plan.notes]
    return out
