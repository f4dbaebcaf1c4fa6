"""The state of a cell, read from its folder. Nothing is remembered anywhere else [no torch]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselab.core.errors import ConfigError
from sparselab.storage import record as records

Signature = tuple[int, int, int] | None


def done(folder: str, id: str) -> bool:
    """True if the cell has its finished record: right id, unbroken seal. Read afresh, about 0.2 ms."""
    record = records.glance(folder, id)
    return record is not None and record["status"] == "finished"


def broken(folder: str, id: str) -> str | None:
    """Why the record that is there cannot be used, or None where there is none or a sound one. Raises OtherLayout."""
    if not records.path_of(folder).exists() or done(folder, id):
        return None
    try:
        records.read(folder, id)
    except records.OtherLayout:
        raise
    except ConfigError as refused:
        return str(refused.issues[0])
    return None


def signature(folder: str) -> Signature:
    """Changes whenever another record is written; None where there is none."""
    try:
        found = records.path_of(folder).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class Ended:
    """The state in a record: ``finished`` or ``failed``, the reason of a failure, the numbers of a success."""

    status: str
    reason: str
    metrics: dict[str, Any]
    seconds: float


def ended(folder: str, id: str, before: Signature = None) -> Ended | None:
    """How the cell ended since its record had the signature ``before``; None while it has not."""
    if signature(folder) in (None, before):
        return None
    try:
        record = records.read(folder, id)
    except ConfigError:
        return None
    reason = str(record.get("reason", ""))
    return Ended(record["status"], reason, record["metrics"], float(record.get("seconds") or 0))


def set_aside(folder: str) -> Path:
    """Rename an unusable record, so that it stays to be looked at and its cell can run. Raises OSError."""
    path = records.path_of(folder)
    number = 1
    while (target := path.with_name(f"unusable-{number}.json")).exists():
        number += 1
    return path.rename(target)
