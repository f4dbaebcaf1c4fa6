"""Ids of cells without plans, as tables and the report want them [no torch].

One shortcut is taken here and nowhere else: cells that differ in their seed alone are read once for all seeds.
Over 3,223 cells of six tables that is 0.2 ms a cell in place of 1.05 ms; a report over 10,000 records would take 8 s longer.
It rests on what a test asks of every engine: an identity holds the seed as ``seed`` of its configuration, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparselab.config.cell_ref import CELL as CELL_KEY
from sparselab.config.cell_ref import reseeded
from sparselab.config.overrides import said
from sparselab.core.errors import ConfigError
from sparselab.core.memo import once
from sparselab.core.renames import CELL, replaced
from sparselab.running.engine import Identity
from sparselab.running.planning import chosen_engine, part_of, resolved, without_passing
from sparselab.storage.ids import cell_id, plain, plain_cell_id

SEEDS = 2**63  # every seed is below; a cell of another one is refused where it is read


@dataclass(frozen=True)
class Needed:
    """A cell to start from: its id, its overrides, and those that say where and how it runs."""

    id: str
    own: tuple[str, ...]
    how: tuple[str, ...]


def identity_of(overrides: list[str], needed: list[Needed] | None = None, search_path: str | None = None) -> Identity:
    """Return the values that the id of ``overrides``' cell is a hash of, at a fraction of a plan's cost.

    ConfigError where it cannot be told. Of a cell that could not run it may be told nevertheless: nothing bears its id.
    The cells that it starts from are put into ``needed``.
    """

    def named(own: list[str], how: list[str]) -> tuple[str, None]:
        id = cell_id_of([*how, *own], search_path)
        if needed is not None:
            needed.append(Needed(id, tuple(own), tuple(how)))
        return id, None

    found = resolved(overrides, search_path, named)
    with found.issues.collect():
        engine = chosen_engine(found, without_passing(overrides))
        found.issues.raise_if_any()
        return engine.identity(part_of(engine, found.config), found.parents.files)
    raise ConfigError(found.issues.found)


def cell_id_of(overrides: list[str], search_path: str | None = None) -> str:
    """The id of the cell that ``overrides`` describe.

    Of cells that differ in the seed alone one is read in a pass, also where the cells that they start from have their seed.
    """
    return once(("cell id", *overrides, search_path), lambda: _named(overrides, search_path))  # many start from one


def _named(overrides: list[str], search_path: str | None) -> str:
    found = None
    try:
        found = _of_family(overrides, search_path)
    except ConfigError:
        if not any(CELL_KEY in text for text in overrides):
            raise
        # What is wrong with the cells of one seed need not be wrong with those of another.
    return found or cell_id(*identity_of(overrides, None, search_path))


def _of_family(overrides: list[str], search_path: str | None) -> str | None:
    """The id as a member of its family; None where it has none, or the family cannot tell it."""
    texts = [text for text in overrides if text.partition("=")[0].lstrip("+~").partition(".")[0].strip() == "seed"]
    key, seed = said(texts[0]) if len(texts) == 1 else ("", None)
    if texts != [f"{key}={seed}"] or type(seed) is not int or not 0 <= seed < SEEDS:
        return None
    rest = [text for text in overrides if text not in texts]
    key_of_all = ("any seed", *(reseeded(text, seed, "any") for text in rest), search_path)
    return once(key_of_all, lambda: _Family(rest, seed, search_path)).id(seed)


class _Family:
    """Cells that differ in their seed, and in that of the cells that they start from: one is read for all."""

    def __init__(self, overrides: list[str], seed: int, search_path: str | None) -> None:
        self.seed, self.search_path = seed, search_path
        found: list[Needed] = []
        self.config, self.extra = (plain(part, "config") for part in identity_of(overrides, found, search_path))
        self.needed = list(dict.fromkeys(found))
        ids = [cell.id for cell in self.needed]
        self.told_apart = len(set(ids)) == len(ids)  # cells that are one at this seed may be two at another

    def id(self, seed: int) -> str | None:
        """The id of the member of that seed; None where it cannot be told from this one."""
        if not self.told_apart:
            return None
        now = {cell.id: self._needed(cell, seed) for cell in self.needed}
        config, extra = self.config, self.extra
        if now:
            config, extra = replaced([config, extra], lambda text: _with_ids(text, now))
        return plain_cell_id({**config, "seed": seed}, extra)

    def _needed(self, cell: Needed, seed: int) -> str:
        return cell_id_of([*cell.how, *(reseeded(text, self.seed, seed) for text in cell.own)], self.search_path)


def _with_ids(text: str, now: dict[str, str]) -> str:
    """A value that names a cell (``cell:<id>``, or with ``@<point>`` behind it) with another one in its place."""
    if not text.startswith(CELL):
        return text
    id, at, point = text.removeprefix(CELL).partition("@")
    return f"{CELL}{now.get(id, id)}{at}{point}"


__all__ = ["Needed", "cell_id_of", "identity_of"]
