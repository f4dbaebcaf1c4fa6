"""What a cell's id is a hash of: content decides, never where it lies or how it runs. [no torch]"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparselab.spec.containers import copied
from sparselab.spec.faults import refuse, short
from sparselab.spec.memo import once
from sparselab.spec.schema import OFF, UNIDENTIFIED


def identified(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the config without what never changes a result, and without what is off and came later."""
    identity = copied(config)
    for dotted in UNIDENTIFIED:
        *path, leaf = dotted.split(".")
        node = identity
        for key in path:
            node = node.get(key, {})
        node.pop(leaf, None)
    for dotted, off in OFF.items():
        *path, leaf = dotted.split(".")
        node = identity
        for key in path:
            node = node.get(key, {})
        if leaf in node and node[leaf] == off:
            del node[leaf]
    return identity


def content(path: str, needs: Mapping[str, str], where: str) -> str:
    """What a file means: the cell that makes it, where the config names one, else its bytes. ``where``: key of the config.

    A folder means the files directly in it, with their names; hidden ones are left out.
    """
    return f"cell:{needs[path]}" if path in needs else once(("digest", path, where), lambda: _digest(path, where))


def _digest(path: str, where: str) -> str:
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
        lines = "".join(f"{file.name}\0{_digest(str(file), where)}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        refuse(f"{where}={short(path)}", f"cannot be read ({error.strerror})", "mend the path")
