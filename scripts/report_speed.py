"""Measure the cost of showing tables: `python scripts/report_speed.py [records]`. Figures for the README.

A runs folder is filled with 10,000 records: of every cell of every table that can be planned here, at all tiers, and the
rest of further seeds. Each is a kept record of its table with the id, the config and the seed of its own cell. The
commands then run as they would for anybody, with nothing in memory. The report runs over the kept results alone and over
the runs besides, each first with nothing kept but the trees that Hydra composed, and then again, and after one more record.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def cells() -> Iterator[tuple[dict[str, Any], list[str]]]:
    """(a kept record of the table, the overrides) of the cells of every table, and then of theirs with other seeds."""
    from sparselab.experiments.tables.grid import expand
    from sparselab.experiments.tables.load import load_all
    from sparselab.experiments.tables.results import read

    found = []
    for table in load_all():
        kept = [entry.record for tier in table.tiers for entry in read(ROOT / "results", table, tier)]
        if kept:
            found += [(kept[0], list(cell.overrides)) for tier in table.tiers for cell in expand(table, tier)]
    yield from found
    for seed in itertools.count(100):
        for record, overrides in found:
            yield record, [*(text for text in overrides if not text.startswith("seed=")), f"seed={seed}"]


def fill(runs: Path, count: int) -> None:
    from sparselab.core.errors import ConfigError
    from sparselab.core.memo import sharing
    from sparselab.running.planning import plan_of
    from sparselab.storage import record as records

    written: set[str] = set()
    with sharing():
        for template, overrides in cells():
            try:
                plan = plan_of([*overrides, f"runs_dir={runs}"])
            except ConfigError:  # a data set that is not here
                continue
            if plan.id not in written:
                body = {key: value for key, value in template.items() if key not in ("seal", "schema")}
                own = {"id": plan.id, "config": plan.recorded_config(), "overrides": plan.overrides}
                records.write(plan.folder, {**body, **own})
                written.add(plan.id)
            if len(written) == count:
                return


def measure(words: list[str]) -> tuple[float, float, float]:
    """(seconds, seconds of processor, MiB at most) of a command."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "sparselab.cli.main", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, words
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPARSELAB_CACHE"] = str(Path(folder, "cache"))
        runs, out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder, "runs"), Path(folder, "report.html")
        if not runs.exists():
            fill(runs, count)
        kept, held = f"results_dir={ROOT / 'results'}", f"runs_dir={runs}"
        report = ["report", f"out={out}", kept]
        for words in (["list", kept], ["table", "paper=srste", "tier=cpu", kept, held]):
            say(words[0], min(measure(words) for _ in range(3)))
        say("report of the kept results alone, nothing kept", measure(report))
        say("again", min(measure(report) for _ in range(3)))
        say("report of the runs as well, nothing kept", measure([*report, held]))
        say("again", min(measure([*report, held]) for _ in range(3)))
        last = min(path for path in runs.iterdir() if path.is_dir())
        last.rename(Path(folder, "aside"))
        measure([*report, held])
        Path(folder, "aside").rename(last)
        say("after one more record", measure([*report, held]))
        print(f"the file {out.stat().st_size / 2**20:.1f} MiB")


def say(what: str, figures: tuple[float, float, float]) -> None:
    seconds, processor, memory = figures
    print(f"{what:48} {seconds:6.2f} s, {processor:6.2f} s of processor, {memory:4.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
