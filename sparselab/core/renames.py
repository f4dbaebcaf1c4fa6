"""Names that the configuration once had: those of older records, and those that somebody may still type.

Only the migration of records and the lines that refuse an old name read this page; no other code knows one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CELL = "cell:"  # how a value that names another cell begins
_WORD = re.compile(r"((?:cell:|[+~]+)?)([A-Za-z_]\w*)([.=].*)", re.DOTALL)
_WORDS = re.compile(r"[^\s'\"\\]+")  # of a cell's overrides, quoted once or more often


@dataclass(frozen=True)
class Renames:
    """The names that changed when records got the layout ``schema``, each old name to the new one.

    groups:  groups of the configuration, which are keys of it too.
    members: of a group (called as it is now) its members.
    beside:  keys of what an id depends on beside the configuration.
    """

    schema: int
    groups: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A resolved configuration with the new names."""
        return _with(config, self.groups, self.members)

    def override(self, text: str) -> str:
        """An override with the new names, also inside a value that names a cell (``model.weights='cell:…'``)."""
        text = self.typed(text)
        key, equals, value = text.partition("=")
        if CELL not in value:
            return text
        return key + equals + _WORDS.sub(lambda word: self.typed(word[0]), value)

    def typed(self, text: str) -> str:
        """An override with the new names, except inside its value."""
        found = _WORD.fullmatch(text)
        if found is None:
            return text
        before, group, rest = found.groups()
        group = self.groups.get(group, group)
        bare = rest[1:].strip("'\"")
        if rest[0] == "=" and bare in self.members.get(group, {}):
            rest = rest.replace(bare, self.members[group][bare])
        return before + group + rest

    def undone(self, identity: tuple[dict[str, Any], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values that the id of a cell was a hash of before the change, from those that it is a hash of after it."""
        config, extra = identity
        groups, beside = _inverse(self.groups), _inverse(self.beside)
        members = {groups.get(group, group): _inverse(names) for group, names in self.members.items()}
        extra = {beside.get(key, key): value for key, value in extra.items()}
        if isinstance(files := extra.get("files"), dict):
            extra["files"] = {_first_word(key, groups): value for key, value in files.items()}
        return _with(config, groups, members), extra


RENAMES = (
    Renames(
        schema=2,
        groups={"term": "loss"},
        members={"engine": {"intervene": "inference", "interact": "online"}},
        beside={"terms": "losses"},
    ),
)


def now_called(text: str) -> str:
    """An override as it is written today; the same text where it has no old name."""
    for step in RENAMES:
        text = step.typed(text)
    return text


def replaced(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of plain containers with ``change`` done to every text that is a value in them."""
    if isinstance(value, dict):
        return {key: replaced(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _with(
    config: Mapping[str, Any], groups: Mapping[str, str], members: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The config with groups, then members (by the new name of their group), called otherwise."""
    renamed = {groups.get(key, key): value for key, value in config.items()}
    for group, names in members.items():
        own = renamed.get(group)
        if isinstance(own, dict) and own.get("name") in names:
            renamed[group] = {**own, "name": names[own["name"]]}
    return renamed


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def _first_word(key: str, names: Mapping[str, str]) -> str:
    word, dot, rest = key.partition(".")
    return names.get(word, word) + dot + rest
