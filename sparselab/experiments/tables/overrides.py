"""Overrides written as a mapping in a table's YAML. [no torch]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparselab.config.plain import quoted, read


def listed(value: Any) -> Any:
    """A mapping of keys to values as the list of overrides that it stands for; anything else as it is.

    ``{method: srste, optim.lr: 0.1, sparsity: "2:4"}`` is ``[method=srste, optim.lr=0.1, sparsity=2:4]``: a text stands as it
    would on the command line.
    """
    return [f"{key}={spelled(item)}" for key, item in value.items()] if isinstance(value, Mapping) else value


def spelled(value: Any) -> str:
    """A value of YAML as the command line has it: ``null``, ``true``, ``[1,a]``, ``{a: 1}``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_inner(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_inner, value)) + "]"
    return str(value)


def _inner(value: Any) -> str:
    """A value in a list or a mapping: a text in quotes where it would not read as itself without (``a, b``)."""
    text = spelled(value)
    if not isinstance(value, str) or "{" in value:  # {seed}, {original}: a table fills it in
        return text
    plain = read(f"x=[{text}]")
    return text if plain is not None and len(plain.value()) == 1 else quoted(value)
