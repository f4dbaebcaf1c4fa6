"""The folder of things that only save time: ``SPARSELAB_CACHE`` or ``~/.cache/sparselab``.

Whoever keeps something there makes it again when it is missing or damaged, and does without where the folder cannot be
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

MISHAPS = (OSError, RuntimeError, TypeError, ValueError)  # no home, no right to read or write, what JSON cannot hold


def cache_folder() -> Path:
    """Return the folder, which need not be there yet."""
    return Path(os.environ.get("SPARSELAB_CACHE") or Path("~/.cache/sparselab").expanduser())


def read(name: Path) -> Any:
    """The value that :func:`write` kept under a relative path; None where there is no whole one."""
    try:
        seal, _, body = (cache_folder() / name).read_text(encoding="utf-8").partition("\n")
        return json.loads(body) if seal == _seal(body) else None
    except MISHAPS:
        return None


def write(name: Path, value: Any) -> None:
    """Keep a value that JSON holds, if the folder lets it."""
    with contextlib.suppress(*MISHAPS):
        body, path = json.dumps(value), cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{_seal(body)}\n{body}")
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _seal(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
