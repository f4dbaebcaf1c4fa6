"""Options that name files in the folder of local copies [no torch]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NETWORKS = "weights/"
"""The folder of networks that others trained, among local copies."""


def near_data(values: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Options that name what is not here but lies in the folder of local copies name it there."""
    if folder is None:
        return values
    moved = {
        key: str(folder / value)
        for key, value in values.items()
        if isinstance(value, str)
        and "/" in value
        and not Path(value).expanduser().exists()
        and (folder / value).exists()
    }
    return {**values, **moved} if moved else values


def only_here(path: str) -> bool:
    """True of a path that can lie nowhere but among local copies: a network there has no name on a hub."""
    return path.startswith(NETWORKS)
