"""`sparselab check <overrides>`: what would run, and every problem that can be foreseen. No torch."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from sparselab.cli.arguments import parse
from sparselab.cli.estimate import estimate

USAGE = """usage: sparselab check [-m] [--config-dir FOLDER] [group=member ...] [key=value ...]

What `python run.py` with the same arguments would do: the cell, its id, steps, cost, and every problem it can foresee.
With -m: a line per cell of the sweep. `python run.py --help` shows the groups."""


def run(argv: list[str]) -> int:
    """Print the plan of one cell, or a line per cell of a sweep; Refused (exit 2) with a line per fault."""
    from sparselab.cli.application import plans_of
    from sparselab.planning import plan_of

    asked = parse(argv)
    if asked.help:
        print(USAGE)
    elif asked.sweep:
        for plan in plans_of(asked):
            print(f"{plan.id} ({state(plan)})  {shlex.join(plan.overrides)}")
    else:
        for label, text in rows(plan_of(asked.overrides, asked.config_dir)):
            print(f"{label:<16}{text}")
    sys.stdout.flush()
    return 0


def state(plan: Any) -> str:
    """Whether the cell has its record."""
    from sparselab.store import record as records

    return "finished" if records.valid(plan.folder, plan.id) else "to run"


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
