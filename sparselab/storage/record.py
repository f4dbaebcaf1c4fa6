"""``record.json``: what a cell gave, sealed. Imports no torch.

A record is written once, whole, and believed only when its seal (a SHA-256 over everything else in it) fits and its
bytes are the ones that :func:`write` writes. ``schema`` grows with every change that an older reader would misread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparselab.core.errors import ConfigError, Issue, RunFailed, refuse
from sparselab.storage import atomic
from sparselab.storage.atomic import shown
from sparselab.storage.ids import digest

SCHEMA = 2  # 2: the names of sparselab.core.renames
NAME = "record.json"
STATUSES = ("finished", "failed")
LIMIT = 64 * 2**20  # bytes; the record of a thousand layers has half a megabyte

_AGAIN = "run the cell again, or remove the file"
# What two runs of one cell must agree on. Seconds, environment, overrides and the config (it has paths) may differ.
_RESULT = ("id", "status", "metrics", "sparsity", "account", "files")


class OtherLayout(ConfigError):
    """A sound record that is not to be judged by today's layout, and never put aside or written over."""


class Newer(OtherLayout):
    """A record that a newer sparselab wrote."""


class Older(OtherLayout):
    """A record that an older sparselab wrote; `sparselab migrate` brings it to today's layout."""


def path_of(folder: str | os.PathLike[str]) -> Path:
    """Return the path of the record in the run folder ``folder``."""
    return Path(folder) / NAME


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with ``schema`` and ``seal``. :class:`RunFailed` for a part that is missing, not plain, not finite."""
    whole = {**record, "schema": SCHEMA}
    whole.pop("seal", None)
    try:
        if not re.fullmatch(r"[0-9a-f]{12}", str(whole.get("id"))):
            refuse(f"record.id={whole.get('id')}", "not a cell's id", "12 hexadecimal characters")
        if whole.get("status") not in STATUSES:
            refuse(f"record.status={whole.get('status')}", "no such status", f"one of: {', '.join(STATUSES)}")
        for key in ("config", "metrics"):
            if not isinstance(whole.get(key), Mapping):
                refuse(f"record.{key}", "is missing", "a record has a config and metrics")
        for name, value in whole["metrics"].items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                refuse(f"record.metrics.{name}", "is not a number", "metrics are plain numbers")
        whole["seal"] = digest(whole, "record")
    except ConfigError as refused:
        raise RunFailed(str(refused)) from None
    return whole


def write(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> Path:
    """Seal ``record`` and write it as ``folder/record.json``, over what is there. Raises as :func:`sealed` does."""
    return atomic.write_bytes(path_of(folder), atomic.render(sealed(record)))


class Settled(NamedTuple):
    """The finished record that stands for a cell, and whether the one that came has the same result."""

    record: dict[str, Any]
    agrees: bool


def settle(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> Settled:
    """Like :func:`write`, for a cell that another process may have finished meanwhile.

    A finished record that is there stays. Where it holds another result, this one is kept beside it as
    ``record-<hash>.json`` and the cell is not deterministic. Of any number of processes no result is lost.
    """
    whole = sealed(record)
    data = atomic.render(whole)
    path = path_of(folder)
    if not atomic.create_bytes(path, data):
        try:
            there = finished(folder, whole["id"])
        except OtherLayout:
            there = None
        if there is not None and result_hash(there) == result_hash(whole):
            return Settled(there, True)
        if there is not None:
            atomic.write_bytes(path.with_name(f"record-{result_hash(whole)[:12]}.json"), data)
            return Settled(there, False)
        atomic.write_bytes(path, data)
    return Settled(json.loads(data), True)


def read(folder: str | os.PathLike[str], id: str | None = None) -> dict[str, Any]:
    """The record of a run folder.

    :class:`ConfigError` when it is missing, half-written or changed (its seal does not fit), of another schema
    (:class:`OtherLayout`), or, where ``id`` is given, another cell's.
    """
    path = path_of(folder)
    where = shown(path)
    try:
        if not path.is_file():
            refuse(where, "no record here" if not path.exists() else "not a file", "give the folder of a finished run")
        if path.stat().st_size > LIMIT:
            refuse(where, f"larger than any record ({LIMIT:,} bytes)", _AGAIN)
        data = path.read_bytes()
    except OSError as error:
        refuse(where, f"cannot be read ({error.strerror})", "make it readable")
    record = _parse(data, where, path.parent.parent)
    if id is not None and record["id"] != id:
        refuse(where, f"the record of cell {shown(record['id'], 16)}, not of {id}", "give that cell's own folder")
    return record


def glance(folder: str | os.PathLike[str], id: str) -> dict[str, Any] | None:
    """The record of the cell ``id`` where its seal fits, about three times faster than :func:`read`; else None.

    What :func:`read` finds besides is a record of the right content in other bytes than ours (``1E-05`` for ``1e-05``).
    """
    try:
        return believed(path_of(folder).read_bytes(), id)
    except OSError:
        return None


def believed(data: bytes, id: str) -> dict[str, Any] | None:
    """:func:`glance` at a record's bytes."""
    try:
        record: dict[str, Any] = plainly(data)
        known = record["id"] == id and record["schema"] == SCHEMA and record["status"] in STATUSES
        return record if known and unchanged(record) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def plainly(data: bytes | str) -> Any:
    """JSON with its numbers as a seal has them."""
    return json.loads(data, parse_float=_number)


def unchanged(record: Mapping[str, Any]) -> bool:
    """True if the seal of a record that :func:`plainly` has read fits, whatever its layout.

    ValueError where it holds what no record does.
    """
    bare = {key: value for key, value in record.items() if key != "seal"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest() == record.get("seal")


def older(where: str, schema: int, folder: str | os.PathLike[str]) -> Issue:
    """The line for a record of an older layout. folder: what is to be migrated."""
    return Issue(where, f"schema {schema} is older than this sparselab's {SCHEMA}", f"run sparselab migrate {folder}")


def _number(text: str) -> float | int:
    """As a seal has it: a whole number is an integer, however it is spelled."""
    value = float(text)
    return int(value) if value.is_integer() else value


def finished(folder: str | os.PathLike[str], id: str) -> dict[str, Any] | None:
    """The FINISHED, sealed record of the cell ``id`` in ``folder``: such a cell need not run again. None where there is none.

    Raises :class:`OtherLayout`.
    """
    try:
        record = read(folder, id)
    except OtherLayout:
        raise
    except ConfigError:
        return None
    return record if record["status"] == "finished" else None


def conflicts(folder: str | os.PathLike[str]) -> list[Path]:
    """Records beside the cell's own that hold another result (:func:`settle`): the cell is not deterministic."""
    return sorted(Path(folder).glob("record-*.json"))


def result_hash(record: Mapping[str, Any]) -> str:
    """SHA-256 over what every run of the cell must give alike: status, metrics, sparsity, account, files, data set."""
    result = {key: record.get(key) for key in _RESULT}
    if isinstance(result["metrics"], Mapping):  # validating more or less often is no part of a cell
        result["metrics"] = {key: value for key, value in result["metrics"].items() if not key.startswith("val.")}
    data = record.get("data")
    if isinstance(data, Mapping):
        data = {key: value for key, value in data.items() if key != "path"}
    return digest({**result, "data": data}, "record")


def _fits_as_ours(record: Mapping[str, Any]) -> bool:
    """True if the seal is the one of this schema: then the record is ours, and its schema's number was damaged."""
    try:
        return bool(sealed(record)["seal"] == record.get("seal"))
    except RunFailed:
        return False


def _parse(data: bytes, where: str, runs: Path) -> dict[str, Any]:
    corrupt = ConfigError([Issue(where, "corrupt or half-written record", _AGAIN)])
    try:
        record = json.loads(data)
        schema = record["schema"]
        if type(schema) is int and schema > SCHEMA:
            if _fits_as_ours(record):
                raise corrupt
            problem = f"schema {schema} is newer than this sparselab's {SCHEMA}"
            raise Newer([Issue(where, problem, "update sparselab, or choose another runs_dir")])
        if type(schema) is int and 1 <= schema < SCHEMA and unchanged(plainly(data)):
            raise Older([older(where, schema, runs)])
        # Bytes as well as the seal: JSON has many spellings of one value, and only one of them is what was written.
        if atomic.render(sealed(record)) != data:
            raise corrupt
    except (ValueError, TypeError, KeyError, RecursionError, RunFailed):
        raise corrupt from None
    return record
