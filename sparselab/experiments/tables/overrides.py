"""Overrides written as a mapping in a table's YAML [no torch]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparselab.config.plain import quoted, read
from sparselab.core.errors import spell


def listed(value: Any) -> Any:
    """A mapping of keys to values as the list of overrides that it stands for; anything else as it is.

    ``{method: srste, optim.lr: 0.1, sparsity: "2:4"}`` is ``[method=srste, optim.lr=0.1, sparsity=2:4]``: a text stands as it
    would on the command line, in quotes where it would not read as itself in a list or a mapping.
    """
    return [f"{key}={spell(_held(item))}" for key, item in value.items()] if isinstance(value, Mapping) else value


def _held(value: Any) -> Any:
    """A value whose lists and mappings hold texts as one types them there."""
    if isinstance(value, Mapping):
        return {key: _typed(item) for key, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else value


def _typed(value: Any) -> Any:
    if not isinstance(value, str) or "{" in value:  # {seed}, {original}: a table fills it in
        return _held(value)
    plain = read(f"x=[{value}]")
    return value if plain is not None and len(plain.value()) == 1 else quoted(value)
