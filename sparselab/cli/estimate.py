"""Expected run times of cells, from the start-up times and the paces of finished cells of the same kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sparselab.running.engine import ENGINES

LOOKED_AT = 50
FURTHER = 0.5  # seconds that a further cell of one process takes to start


def estimate(plans: Sequence[Any]) -> str:
    """A sentence with the expected time of all ``plans`` one after the other, and where it is from.

    A masked network is computed densely, so of training the dense FLOPs set the pace. Only records of the same kind
    count (:meth:`~sparselab.running.engine.Engine.alike`); without one it is a guess.
    """
    records = [record for file in _latest(Path(plans[0].config["runs_dir"])) if (record := _read(file))]
    total, used, guessed = 0.0, 0, 0
    for number, plan in enumerate(plans):
        engine = ENGINES[plan.config["engine"]["name"]]
        paces = _paces(plan, records)
        if paces:
            total += median(start for start, _ in paces) + plan.work * median(each for _, each in paces)
            used = max(used, len(paces))
        elif (seconds := engine.guessed(plan)) is None:
            return f"not known: no earlier record of its kind in {plan.config['runs_dir']}"
        else:
            total += seconds - engine.start + FURTHER if number else seconds
            guessed += 1
    if guessed == len(plans):
        return f"about {_span(total)} (a guess: no earlier record of its kind in {plans[0].config['runs_dir']})"
    rest = f"; {guessed} of {len(plans)} cells guessed" if guessed else ""
    return f"about {_span(total)} (from {used} earlier record{'s' if used > 1 else ''} of its kind{rest})"


def _paces(plan: Any, records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(seconds to start, seconds per unit of work) of each record of the plan's kind that tells them."""
    engine = ENGINES[plan.config["engine"]["name"]]
    found = []
    for record in records:
        try:
            if record["status"] == "finished" and record["config"]["engine"]["name"] == engine.name:
                pace = engine.pace_of(record) if engine.alike(record, plan) else None
                found += [pace] if pace else []
        except (ValueError, KeyError, ZeroDivisionError, AttributeError, TypeError):
            continue
    return found


def _read(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _latest(runs: Path) -> list[Path]:
    files = runs.glob("*/record.json") if runs.is_dir() else []
    return sorted(files, key=lambda f: f.stat().st_mtime, reverse=True)[:LOOKED_AT]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
