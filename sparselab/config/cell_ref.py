"""A cell as a value of another one's config: a parent, from which weights, masks or both are taken [no torch].

One syntax, in YAML and on a command line: ``{cell: {method: dense, seed: 0}, take: weights, at: 100}``. A cell in a cell is a
mapping in a mapping, so that nothing is quoted inside quotes. The older text ``cell:method=dense seed=0`` means the same.

A chain is a recipe that runs several times, each time from where it ended before: of ``{cell: {method: dense}, chain:
{dataset.limit_train: [500, 5000]}}`` the parent trains on 5,000 examples, and starts from the weights that another cell learnt
from 500.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sparselab.config.overrides import said
from sparselab.config.plain import written
from sparselab.core.errors import did_you_mean, refuse, short, spell
from sparselab.core.memo import once
from sparselab.core.points import FORM, point_of

CELL = "cell"
TEXT = "cell:"  # how the older form begins
WEIGHTS, MASKS, BOTH = TAKES = ("weights", "masks", "both")
CHAIN = "chain"
KEYS = (CELL, "take", "at", CHAIN)
START = {WEIGHTS: "model.weights", MASKS: "targets.masks"}
"""Options at which a link of a chain takes what the link before it made."""
PHASE = ("phase", "with")  # what tables write in the place of a cell
EXAMPLE = "{cell: {method: dense, model: mlp}}"


@dataclass(frozen=True)
class CellRef:
    """One parent of a cell.

    overrides: of the parent, each ``key=value``.
    take:      ``weights``, ``masks`` or ``both``; None: what the option that names it is about.
    at:        the point of its run at which its weights are taken (:func:`sparselab.core.points.point_of`); None: the end.
    id, path:  of the parent and of the file that stands for it, once it is planned.
    """

    overrides: tuple[str, ...]
    take: str | None = None
    at: str | None = None
    id: str | None = None
    path: str | None = None

    @classmethod
    def of(cls, value: Any, where: str) -> CellRef:
        """Read a value that :func:`names_cell`. where: its key. Raises ConfigError."""
        if isinstance(value, str):
            return cls(_words(value, where))
        for key in value:
            if key in PHASE:
                refuse(f"{where}: {key}", "is a word of tables, which name their phases", f"write {where}={EXAMPLE}")
            if key not in KEYS:
                refuse(f"{where}.{key}", "is not said of a cell", did_you_mean(str(key), KEYS))
        own, take, at = value.get(CELL), value.get("take"), value.get("at")
        if not isinstance(own, dict) or not own:
            _names_none(f"{where}={spell(value)}", where)
        if take is not None and take not in TAKES:
            refuse(f"{where}.take={short(spell(take), 30)}", "cannot be taken", did_you_mean(str(take), TAKES))
        point = point_of(at)
        if at is not None and point is None:
            refuse(f"{where}.at={short(spell(at), 30)}", "is no point of a run", f"write {FORM}")
        if point is not None and take in (MASKS, BOTH):
            refuse(f"{where}.at={point}", "masks are those of the end", "take weights here, and masks at targets.masks")
        if CHAIN in value:
            own = _last_link(own, value[CHAIN], take, where)
        return cls(tuple(f"{key}={written(plain_cells(item, key))}" for key, item in own.items()), take, point)

    def planned(self, id: str, path: str) -> CellRef:
        return replace(self, id=id, path=path)

    def tree(self) -> dict[str, Any]:
        """Plain containers that :meth:`of` reads as the same parent; of two overrides with one key the later stays."""
        own: dict[str, Any] = {}
        for text in self.overrides:
            key, value = said(text)
            own.pop(key, None)
            own[key] = plain_cells(value, key)
        tree: dict[str, Any] = {CELL: own}
        if self.take is not None:
            tree["take"] = self.take
        if self.at is not None:
            tree["at"] = int(self.at) if self.at.isdigit() else self.at
        return tree

    def __str__(self) -> str:
        return written(self.tree())


def _last_link(own: dict[str, Any], chain: Any, take: str | None, where: str) -> dict[str, Any]:
    """Overrides of a chain's last cell, with the rest of the chain as its parent. chain: a list of values for each key."""
    at, start = f"{where}.{CHAIN}", START[MASKS if take == MASKS or where == START[MASKS] else WEIGHTS]
    if not isinstance(chain, dict) or not chain or not all(isinstance(item, list) and item for item in chain.values()):
        refuse(f"{at}={short(spell(chain), 30)}", "is no chain", f"write {CHAIN}: {{optim.lr: [0.1, 0.01]}}")
    lengths = {len(item) for item in chain.values()}
    if len(lengths) > 1:
        refuse(
            at, f"has lists of {' and '.join(map(str, sorted(lengths)))} values", "give each key a value for each link"
        )
    if start in chain:
        refuse(f"{at}.{start}", "is what a chain hands on", "leave it out")
    last = {**own, **{key: item[-1] for key, item in chain.items()}}
    if lengths == {1}:
        return last
    rest = {key: item[:-1] for key, item in chain.items()}
    return {**last, start: {CELL: own, CHAIN: rest, **({} if take is None else {"take": take})}}


def names_cell(value: Any) -> bool:
    """True for a value that stands for a cell, in either form."""
    if isinstance(value, str):
        return value.startswith(TEXT)
    return isinstance(value, dict) and (CELL in value or names_phase(value))


def names_phase(value: Any) -> bool:
    """True for what a table writes for one of its phases: ``{phase: original}``, with or without more."""
    return isinstance(value, dict) and {"phase"} <= value.keys() <= {*PHASE, *KEYS[1:]}


def names_cells(value: Any) -> bool:
    """True for a list in which at least one item stands for a cell."""
    return isinstance(value, list) and any(map(names_cell, value))


def plain_cells(value: Any, where: str) -> Any:
    """The value of the key ``where`` with its cells as plain containers, whichever form they had."""
    if names_cell(value) and not names_phase(value):
        return CellRef.of(value, where).tree()
    return [plain_cells(item, where) for item in value] if isinstance(value, list) else value


def reseeded(override: str, seed: int, other: int | str) -> str:
    """An override of a cell of the seed ``seed`` for one of the seed ``other``.

    The cells that it names, and those that they name, get the other seed where they have that one. Raises ConfigError.
    """
    if CELL not in override and not override.startswith("seed="):
        return override
    key, value = said(override)
    if key == "seed":
        return f"{key}={other}" if type(value) is int and value == seed else override
    found = _reseeded(value, key, seed, other)
    return override if found == value else f"{key}={written(found)}"


def _reseeded(value: Any, where: str, seed: int, other: int | str) -> Any:
    if isinstance(value, list):
        return [_reseeded(item, where, seed, other) for item in value]
    if names_phase(value):
        return value
    if not names_cell(value):  # a mapping, such as a network of a dataset's, may hold a cell further down
        own = value.items() if isinstance(value, dict) else ()
        return {key: _reseeded(item, f"{where}.{key}", seed, other) for key, item in own} if own else value
    ref = CellRef.of(value, where)
    return replace(ref, overrides=tuple(reseeded(text, seed, other) for text in ref.overrides)).tree()


@lru_cache(maxsize=8192)
def canonical(override: str) -> str:
    """One override as this version of sparselab writes it, so that both forms of a cell compare as one."""
    if CELL not in override:
        return override
    key, value = said(override)
    return f"{key}={written(plain_cells(value, key))}" if names_cell(value) or names_cells(value) else override


def _words(value: str, where: str) -> tuple[str, ...]:
    try:
        own = once(("words", value), lambda: shlex.split(value.removeprefix(TEXT)))
    except ValueError:
        own = []
    if not own:
        _names_none(f"{where}={value}", where)
    return tuple(own)


def _names_none(said: str, where: str) -> None:
    refuse(short(said), "names no cell", f"write '{where}={EXAMPLE}'")
