"""Names that follow from content: the id of a cell and its label for people. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sparselab.core.errors import refuse

LABEL_BYTES = 100


def canonical(config: Any, where: str = "config") -> str:
    """The one JSON text of a plain value: the order of keys and the way a number is written leave no trace.

    ``1``, ``1.0`` and ``1e0`` are one number, tuples are lists. :class:`ConfigError`, naming the key, for NaN, infinity,
    keys that are not text and values that are not plain data.
    """
    return _text(plain(config, where))


def digest(value: Any, where: str = "config") -> str:
    """SHA-256 of :func:`canonical` in hexadecimal."""
    return hashlib.sha256(canonical(value, where).encode()).hexdigest()


def cell_id(identity: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> str:
    """12 hexadecimal characters that change exactly when ``identity`` (or ``extra``) does.

    The caller leaves out what cannot change the result: paths, loggers, progress bars, the number of devices.
    """
    return digest(dict(identity) if extra is None else {"config": identity, "extra": extra})[:12]


def label(config_overrides: Iterable[str]) -> str:
    """A file name for people made of overrides: ``["method=srste", "sparsity=2:4"]`` is ``method=srste,sparsity=2-4``.

    At most 100 bytes of ``A-Za-z0-9._=+,-``; never empty, hidden or with ``..``. What is cut ends in a digest of the
    whole.
    """
    whole = ",".join(config_overrides)
    name = re.sub(r"[^A-Za-z0-9._=+,-]+", "-", whole)
    name = re.sub(r"\.{2,}", ".", name).strip(".,-") or "cell"
    if len(name) <= LABEL_BYTES:
        return name
    tail = "-" + hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:8]
    return name[: LABEL_BYTES - len(tail)] + tail


def plain_cell_id(identity: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """:func:`cell_id` of what :func:`plain` has given: for many cells that differ in a value or two."""
    return hashlib.sha256(_text({"config": identity, "extra": extra}).encode()).hexdigest()[:12]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(value: Any, where: str) -> Any:
    """A copy of plain data as :func:`canonical` writes it. Raises as that does."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            refuse(f"{where}={value}", "not a finite number", "every number here must be finite")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                refuse(where, f"the key {key!r} is not text", "write keys as text")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        refuse(where, f"a {type(value).__name__} is not plain data", "write numbers, text, lists or groups")
    return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
