"""An index of the cells that a runs folder may hold, made without planning them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparselab.config.members import CONFIGS
from sparselab.config.schema import UNIDENTIFIED
from sparselab.experiments.tables.grid import Cell

SEED = re.compile(r"seed=(\d+)")
CHOICE = re.compile(r"([a-z_]+)=([\w/-]+)", re.ASCII)

Names = frozenset[tuple[str, str]]
NOTHING: Mapping[str, list[Any]] = MappingProxyType({})


class RunIndex:
    """The records of a runs folder; by id, and by the plug-ins and the seed that they ran with.

    Naming a cell's folder exactly takes a fraction of a millisecond; a report asks for the cells of all tables, of which a
    folder holds few. :meth:`may_hold` only ever says no where no plan could lead to one of the records.

    digests: SHA-256 of each sound record's bytes, by id. known: what an earlier index of the folder said of records, by the
    digests of their bytes: id, plug-ins, seed. Sound bytes stay sound, so these are neither parsed nor checked again.
    """

    def __init__(self, runs_dir: Path, known: Mapping[str, list[Any]] = NOTHING) -> None:
        self.runs_dir = runs_dir
        self.digests: dict[str, str] = {}
        self.known: dict[str, list[Any]] = {}
        self.kinds: dict[Names, set[int]] = {}  # plug-ins by group -> seeds
        self._records: dict[str, dict[str, Any]] = {}
        self._answers: dict[tuple[Names, int | None], bool] = {}
        self.unknown = False  # a record that cannot be read may be any cell's
        for folder in runs_dir.iterdir() if runs_dir.is_dir() else ():
            self._put(folder, known)

    def _put(self, folder: Path, known: Mapping[str, list[Any]]) -> None:
        from sparselab.storage import record as records

        try:
            data = records.path_of(folder).read_bytes()
            told = known.get(digest := hashlib.sha256(data).hexdigest())
            if told is None or told[0] != folder.name:
                sound = records.believed(data, folder.name)
                told = [folder.name, *_kind(sound or json.loads(data))]
                if sound is None:
                    digest = ""
                else:
                    self._records[folder.name] = light(sound)
            names = frozenset((group, name) for group, name in told[1])
            self.kinds.setdefault(names, set()).add(told[2])
            if digest:
                self.digests[folder.name] = digest
                self.known[digest] = told
        except (FileNotFoundError, NotADirectoryError):
            return
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ):  # another's, or half a record
            self.unknown = True

    @property
    def empty(self) -> bool:
        """True if the folder holds no record, nor anything that may be one."""
        return not self.kinds and not self.unknown

    def record(self, id: str) -> dict[str, Any] | None:
        """The record of that cell, without what no rendering reads; None where there is no sound one."""
        from sparselab.storage import record as records

        if id not in self._records and id in self.digests:
            there = records.glance(self.runs_dir / id, id)
            if there is None:  # it went, or changed, since the index was made
                return None
            self._records[id] = light(there)
        return self._records.get(id)

    def may_hold(self, cell: Cell) -> bool:
        """True if one of the records may be the cell's."""
        return self.may_be(facts(cell.overrides))

    def may_be(self, asked: tuple[Names, int | None]) -> bool:
        """True if one of the records may be of a cell of which :func:`facts` tells this."""
        if self.unknown:
            return True
        if asked not in self._answers:  # cells of a table ask for few
            names, seed = asked
            self._answers[asked] = any(
                (seed is None or seed in seeds) and names <= kind  # a group that is not there is one its engine refuses
                for kind, seeds in self.kinds.items()
            )
        return self._answers[asked]


def _kind(record: Mapping[str, Any]) -> tuple[list[list[str]], int]:
    """(group and name of each plug-in, the seed) that a record's config has."""
    config = record["config"]
    groups = {group: own for group, own in config.items() if isinstance(own, dict)}
    inner = {key: own for group in groups.values() for key, own in group.items() if isinstance(own, dict)}
    # A group within another (a model's neuron) stands there once its cell is planned; one at the top counts first.
    names = {group: own.get("name") for group, own in {**inner, **groups}.items()}
    return [[group, name] for group, name in sorted(names.items()) if isinstance(name, str)], config["seed"]


def light(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the parts that no rendering reads: ten thousand of them have to fit into memory."""
    rest = {key: value for key, value in record.items() if key != "config"}
    if isinstance(cost := rest.get("account"), dict):
        rest["account"] = {key: value for key, value in cost.items() if key != "layers"}
    return rest


def facts(overrides: Iterable[str]) -> tuple[Names, int | None]:
    """(plug-ins by group, the seed) that overrides ask for, as far as their words say it."""
    names: dict[str, str] = {}
    seed = None
    for text in overrides:
        if found := SEED.fullmatch(text):
            seed = int(found[1])
        elif (found := CHOICE.fullmatch(text)) and found[1] not in UNIDENTIFIED:
            names[found[1]] = plugin(found[1], found[2]) or ""
    return frozenset(item for item in names.items() if item[1]), seed


@lru_cache(maxsize=1024)
def plugin(group: str, member: str, configs: Path = CONFIGS) -> str | None:
    """The name that a member's own file gives; None where it says none, or there is no such file."""
    path = configs / group / f"{member}.yaml"
    if not path.is_file():
        return None
    found = re.search(r"^name: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


__all__ = ["RunIndex", "facts", "light", "plugin"]
