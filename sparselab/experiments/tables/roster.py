"""The cells of tables with their names, as one report keeps them for the next.

Naming the cells that 10,000 records may be of takes 10 seconds of a processor and more, reading their names a tenth of one.
A name is kept with the table's bytes and with the circumstances (:mod:`sparselab.running.circumstances`) that it was made
under; under any other it is made anew. What is kept is what :func:`sparselab.running.cell_ids.cell_id_of` said, a refusal
included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparselab.core.errors import ConfigError, Issue
from sparselab.core.memo import once
from sparselab.experiments.tables.grid import Cell
from sparselab.experiments.tables.run_index import Names, RunIndex, facts

Name = str | list[list[str]]
"""An id, or the lines of a refusal."""
_WORD = re.compile(r"[^\s'\"{}\[\],=]+")


@dataclass
class Roster:
    """The cells of a table at a tier, in its order.

    facts: what words of cells say of a record (:func:`~sparselab.experiments.tables.run_index.facts`), each once.
    of: of each cell its number in ``facts``. names: of each cell, None until somebody asks for it.
    words: of all overrides, those that may be paths.
    """

    facts: list[tuple[Names, int | None]]
    of: list[int]
    names: list[Name | None]
    words: list[str]
    changed: bool = field(default=False, compare=False)

    @classmethod
    def made(cls, cells: Iterable[Cell]) -> Roster:
        """The roster of a table's cells, none named yet."""
        numbers: dict[tuple[Names, int | None], int] = {}
        texts: dict[str, None] = {}
        of = []
        for cell in cells:
            of.append(numbers.setdefault(facts(cell.overrides), len(numbers)))
            texts |= dict.fromkeys(cell.overrides)
        words = sorted({word for text in texts for word in _WORD.findall(text.partition("=")[2])})
        return cls(list(numbers), of, [None] * len(of), words, changed=True)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Roster:
        """The roster that :meth:`json` wrote."""
        told = [(frozenset((k, v) for k, v in names), seed) for names, seed in kept["facts"]]
        return cls(told, kept["of"], list(kept["names"]), kept["words"])

    def json(self) -> dict[str, Any]:
        """Plain data of it."""
        told = [[sorted(map(list, names)), seed] for names, seed in self.facts]
        return {"facts": told, "of": self.of, "names": self.names, "words": self.words}

    def local(self) -> bool:
        """True if a word names something that lies here, which the circumstances do not tell of."""
        return any(_lies_here(word) for word in self.words)

    def named(self, index: RunIndex, cells: Callable[[], list[Cell]], name: Callable[[list[str]], str]) -> Found:
        """The names of those cells that ``index`` may hold; ``cells`` and ``name`` are asked for what is not named yet."""
        may = [index.may_be(told) for told in self.facts]
        held: list[tuple[int, str]] = []
        complaints: dict[str, None] = {}
        for number, fact in enumerate(self.of):
            if not may[fact]:
                continue
            if (known := self.names[number]) is None:
                known = self.names[number] = _name(name, list(cells()[number].overrides))
                self.changed = True
            if isinstance(known, str):
                held.append((number, known))
            else:
                complaints |= dict.fromkeys(str(Issue(*line)) for line in known)
        return Found(dict(held), list(complaints))


@dataclass(frozen=True)
class Found:
    """ids: of cells by their number in the table. complaints: why others have none."""

    ids: dict[int, str]
    complaints: list[str]


def _lies_here(word: str) -> bool:
    def found() -> bool:
        try:
            return os.path.lexists(Path(word).expanduser())
        except (RuntimeError, ValueError):  # the home of nobody; no name for a file
            return False

    return once(("lies here", word), found)


def _name(name: Callable[[list[str]], str], overrides: list[str]) -> Name:
    try:
        return name(overrides)
    except ConfigError as refused:
        return [[issue.where, issue.problem, issue.fix] for issue in refused.issues]
