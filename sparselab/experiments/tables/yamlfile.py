"""Reading a table's YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparselab.config.yaml_file import mapping_of
from sparselab.core.errors import refuse

LARGEST = 1_000_000
"""Bytes of the largest file that is read."""


def read_yaml(path: Path, where: str) -> dict[str, Any]:
    """The mapping in ``path``. ``where`` names the file in faults. Raises ConfigError, also for an empty file."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        refuse(where, f"cannot be read ({error})", "write a UTF-8 text file")
    if len(data) > LARGEST:
        refuse(where, f"has {len(data):,} bytes", f"a table takes less than {LARGEST:,}")
    return mapping_of(text, where) or refuse(where, "is empty", "write `source:`, `rows:`, `columns:` ...")
