"""How long a cell will take, from what earlier cells took."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from sparselab.engines.engine import ENGINES

LOOKED_AT = 50


def estimate(plan: Any, work: float | None = None) -> str:
    """A sentence with the expected time and where it is from: of the plan, or of that much work of its kind.

    A masked network is computed densely, so of training the dense FLOPs set the pace. Records of the same engine count,
    and those of the same model and data more than others.
    """
    work = plan.work if work is None else work
    engine = ENGINES[plan.config["engine"]["name"]]
    same, any_rate = [], []
    for file in _latest(Path(plan.config["runs_dir"])):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["status"] != "finished" or record["config"]["engine"]["name"] != engine.name:
                continue
            rate = engine.work_of(record) / record["seconds"]
            if rate <= 0:
                continue
            any_rate.append(rate)
            if all(record["config"][key].get("name") == plan.config[key].get("name") for key in engine.paced):
                same.append(rate)
        except (OSError, ValueError, KeyError, ZeroDivisionError, AttributeError, TypeError):
            continue
    if same or any_rate:
        count = len(same or any_rate)
        basis = f"from {count} earlier record{'s' if count > 1 else ''}{' of its kind' if same else ''}"
        return f"about {_span(work / median(same or any_rate))} ({basis})"
    if not engine.guess:
        return f"not known: no earlier record in {plan.config['runs_dir']}"
    return f"about {_span(work / engine.guess)} (a guess: no earlier record in {plan.config['runs_dir']})"


def _latest(runs: Path) -> list[Path]:
    files = runs.glob("*/record.json") if runs.is_dir() else []
    return sorted(files, key=lambda f: f.stat().st_mtime, reverse=True)[:LOOKED_AT]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
