"""From overrides to one resolved config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparselab.config.members import CONFIGS, flatten, groups, tree_of
from sparselab.config.overrides import check
from sparselab.core.errors import Issue

__all__ = ["CONFIGS", "Composed", "compose", "defaults", "flatten", "groups"]


@dataclass(frozen=True)
class Composed:
    """A config, and what had to be left out to compose it.

    issues: of overrides that mean nothing. invalid: top-level keys that are not what was asked for; what the config says
    of these is the default's, so nothing should be concluded from it.
    """

    config: dict[str, Any]
    issues: list[Issue]
    invalid: frozenset[str]


def compose(overrides: list[str], search_path: str | None = None) -> Composed:
    """The resolved config, as plain containers, of those overrides that mean something.

    Members are chosen first, then values are set in the order given; of two for one key the later wins. A mapping
    replaces what was there.
    """
    checked = check(overrides, search_path)
    for key, value, _ in checked.values:
        *path, leaf = key.split(".")
        node: Any = checked.tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return Composed(checked.tree, checked.issues, frozenset(checked.invalid))


def defaults() -> dict[str, Any]:
    """The config of no overrides at all."""
    return tree_of([])
