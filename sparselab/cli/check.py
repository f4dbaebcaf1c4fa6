"""`sparselab check <overrides>`: what would run, and every problem that can be foreseen. No torch."""

from __future__ import annotations

import sys
from typing import Any

from sparselab.cli.estimate import estimate


def run(argv: list[str]) -> int:
    """Print the plan of one cell; Refused (exit 2) with a line per fault."""
    from sparselab.planning import plan_of

    plan = plan_of(argv)
    for label, text in rows(plan):
        print(f"{label:<16}{text}")
    sys.stdout.flush()
    return 0


def rows(plan: Any) -> list[tuple[str, str]]:
    """(label, text) lines about a plan."""
    from sparselab.store import record as records

    parts, account = plan.parts, plan.account
    data = parts.data
    state = "finished" if records.valid(plan.folder, plan.id) else "to run"
    out = [
        ("cell", f"{plan.id} ({state}, {plan.folder})"),
        ("method", f"{parts.method.name} · sparsity {parts.sparsity} · schedule {parts.schedule.name}"
                   f" · distribution {parts.distribution.name}"),
        ("data", f"{data.title or data.name}: {data.train:,} train, {data.val:,} val, {data.test:,} test ({data.source})"),
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
