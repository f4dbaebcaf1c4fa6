"""Ids and metrics of every committed record, to prove that a change of names or of structure changes no number.

    python scripts/record_ids.py write before.json      # on the commit before
    python scripts/record_ids.py compare before.json    # on the commit after; exit code 1 where something differs
    python scripts/record_ids.py migrated before.json   # the same after `sparselab migrate`: old ids stand for new ones

For every cell of every table and tier: the id that is planned now (null where it cannot be planned on this machine), the id
of the record under results/, and a hash of the record's metrics. ``migrated`` asks of every record that its former id (the
first of its ``migrated``) is the one before, that its metrics are the same, and that its cell is planned under its new id.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from sparselab.core.errors import ConfigError
from sparselab.core.memo import sharing
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load_all
from sparselab.experiments.tables.results import read
from sparselab.running.cell_ids import cell_id_of

ROOT = Path(__file__).resolve().parents[1]


def found() -> tuple[dict[str, list[str | None]], dict[str, str]]:
    """(cell, ``table tier row|column|seed``, to [planned id, recorded id, hash of the recorded metrics]; new id to old)."""
    cells: dict[str, list[str | None]] = {}
    former: dict[str, str] = {}
    with sharing():
        for table in load_all():
            for tier in table.tiers:
                kept = {(e.cell.place, e.cell.seed): e.record for e in read(ROOT / "results", table, tier)}
                for cell in expand(table, tier):
                    record = kept.get((cell.place, cell.seed), {})
                    metrics = json.dumps(record.get("metrics"), sort_keys=True).encode()
                    recorded = [record["id"], hashlib.sha256(metrics).hexdigest()[:16]] if record else [None, None]
                    former |= {record["id"]: record["migrated"][0]} if record.get("migrated") else {}
                    cells[f"{table.label} {tier} {cell.row}|{cell.column}|{cell.seed}"] = [planned(cell), *recorded]
    return cells, former


def planned(cell) -> str | None:
    try:
        return cell_id_of(list(cell.overrides))
    except ConfigError:
        return None


def main(action: str, path: str) -> int:
    now, former = found()
    if action == "write":
        Path(path).write_text(json.dumps(now, indent=0, sort_keys=True))
        print(f"{len(now):,} cells, {sum(r[1] is not None for r in now.values()):,} with a record")
        return 0
    before = json.loads(Path(path).read_text())
    if action == "migrated":
        return migrated(before, now, former)
    changed = {cell: (before[cell], now[cell]) for cell in before.keys() & now.keys() if before[cell] != now[cell]}
    for cell, (old, new) in sorted(changed.items()):
        print(f"{cell}: {old} → {new}")
    print(f"{len(before.keys() & now.keys()):,} cells in both, {len(changed)} changed, "
          f"{len(before.keys() - now.keys())} gone, {len(now.keys() - before.keys())} new")  # fmt: skip
    return 1 if changed else 0


def migrated(before: dict[str, list[str | None]], now: dict[str, list[str | None]], former: dict[str, str]) -> int:
    """Print what a migration changed beside names; exit code 1 where it is anything."""
    wrong, renamed = [], 0
    for cell, (planned_before, recorded_before, metrics_before) in before.items():
        planned_now, recorded_now, metrics_now = now.get(cell, [None, None, None])
        if recorded_before is None:
            continue
        renamed += recorded_now != recorded_before
        found_before, found_now = planned_before == recorded_before, planned_now == recorded_now
        same = former.get(str(recorded_now), recorded_now) == recorded_before and metrics_now == metrics_before
        if not same or found_before != found_now:
            wrong.append(f"{cell}: {before[cell]} → {now.get(cell)}")
    print("\n".join(sorted(wrong)))
    records = sum(r[1] is not None for r in before.values())
    print(f"{records:,} records, {renamed:,} under a new id, {len(wrong)} orphaned or changed")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "compare", "migrated"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
