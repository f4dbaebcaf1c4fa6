"""How long a cell will take, from what earlier cells took."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

# Dense training FLOPs per second of two ordinary cores, where no record says better.
GUESS = 5e10
LOOKED_AT = 50


def estimate(plan: Any, work: float | None = None) -> str:
    """A sentence with the expected time and where it is from: of the plan, or of that many dense FLOPs of its kind.

    A masked network is computed densely, so the dense FLOPs set the pace. Records of the same model and precision are
    preferred to others.
    """
    work = plan.account["flops_train_dense"] if work is None else work
    same, any_rate = [], []
    for file in _latest(Path(plan.parts.cell.runs_dir)):
        try:
            record = json.loads(file.read_text())
            rate = record["account"]["flops_train_dense"] / record["seconds"]
            if record["status"] != "finished" or rate <= 0:
                continue
            any_rate.append(rate)
            like = ("model", "dataset")
            if all(record["config"][key].get("name") == plan.config[key].get("name") for key in like):
                same.append(rate)
        except (OSError, ValueError, KeyError, ZeroDivisionError, AttributeError, TypeError):
            continue
    if same or any_rate:
        count = len(same or any_rate)
        basis = f"from {count} earlier record{'s' if count > 1 else ''}{' of this model' if same else ''}"
        return f"about {_span(work / median(same or any_rate))} ({basis})"
    return f"about {_span(work / GUESS)} (a guess: no earlier record in {plan.parts.cell.runs_dir})"


def _latest(runs: Path) -> list[Path]:
    files = runs.glob("*/record.json") if runs.is_dir() else []
    return sorted(files, key=lambda f: f.stat().st_mtime, reverse=True)[:LOOKED_AT]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
