"""The runs of a folder: what their records say, and of those without one how far they are [no torch]."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparselab.config.schema import identified_option
from sparselab.core.errors import ConfigError
from sparselab.experiments.sweeps import lease
from sparselab.experiments.sweeps.job import LOG
from sparselab.storage import record as records

STATES = ("finished", "failed", "running", "stopped", "broken")
UPDATE = re.compile(rb"update (\d+)/(\d+)([^\n]*)")
STEP = re.compile(rb"^(\d+),", re.MULTILINE)
METRICS = "metrics.csv"
TAIL = 4000  # bytes of a log in which the last update is looked for


@dataclass(frozen=True)
class Run:
    """A run folder.

    state:  ``finished`` or ``failed`` (there is a record), ``running`` (a process holds the cell, or its files have changed
            within two minutes), ``stopped`` (neither), or ``broken``: a record that cannot be read.
    record: what there is of it, else empty. note: how far it is, who runs it, or why it failed.
    """

    folder: Path
    state: str
    record: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> dict[str, float]:
        return {key: value for key, value in self.record.get("metrics", {}).items() if isinstance(value, int | float)}

    @property
    def seconds(self) -> float | None:
        return self.record.get("seconds")

    def said(self) -> list[str]:
        """Its overrides as typed, without those that change no result."""
        return [text for text in self.record.get("overrides", []) if identified_option(text.partition("=")[0])]


def runs_in(folder: Path) -> list[Run]:
    """Every run in a folder, by name."""
    return [run for path in sorted(folder.iterdir()) if (run := read(path)) is not None]


def read(folder: Path) -> Run | None:
    """One run folder; None for what is none."""
    if folder.name.startswith(".") or not folder.is_dir():
        return None
    if records.path_of(folder).exists():
        record = records.glance(folder, folder.name)
        if record is None:
            try:
                record = records.read(folder, folder.name)
            except ConfigError as refused:
                return Run(folder, "broken", note=str(refused.issues[0]))
        return Run(folder, str(record["status"]), record, str(record.get("reason", "")))
    holder, far = lease.held(folder), _from_log(folder / LOG) or _from_metrics(folder / METRICS)
    signs = [path for name in (LOG, METRICS, "checkpoints") if (path := folder / name).exists()]
    if holder is None and not signs:
        return None
    ago = min((_age(path) for path in signs), default=0.0)
    told = ", ".join(filter(None, [far or "before its first update", f"{span(ago)} ago" if far else ""]))
    if holder is not None:
        return Run(folder, "running", note=f"{told} · {holder}")
    return Run(folder, "running" if ago < lease.STALE else "stopped", note=told)


def _age(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return float("inf")


def _from_log(log: Path) -> str:
    """The last update that a sweep's log tells of, and what is left as it says."""
    told = UPDATE.findall(_tail(log))
    if not told:
        return ""
    done, whole, more = told[-1]
    left = re.search(r"[\w .]+ left", more.decode(errors="replace"))
    return f"update {int(done):,} of {int(whole):,}" + (f", {left[0].strip()}" if left else "")


def _from_metrics(table: Path) -> str:
    """The last update that a run's own table of metrics tells of."""
    told = STEP.findall(_tail(table))
    return f"update {int(told[-1]) + 1:,}" if told else ""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read()
    except OSError:
        return b""


def span(seconds: float) -> str:
    """A time in the largest unit of which there are two."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of all that a record's config says, as one types it: ``method`` is its member, ``method.lr`` an option."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{name}.")
        elif name.endswith(".name"):
            yield name.removesuffix(".name"), value
        else:
            yield name, value
