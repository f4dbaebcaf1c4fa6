"""A cell as a value of another one's config: a parent, from which weights, masks or both are taken [no torch].

One syntax, in YAML and on a command line: ``{cell: {method: dense, seed: 0}, take: weights, at: 100}``. A cell in a cell is a
mapping in a mapping, so that nothing is quoted inside quotes. The older text ``cell:method=dense seed=0`` means the same.

A chain is a recipe that runs several times, each time from where it ended before: of ``{cell: {method: dense}, chain:
{dataset.limit_train: [500, 5000]}}`` the parent trains on 5,000 examples, and starts from the weights that another cell learnt
from 500.

Several parents that differ in a few values are one mapping: ``{cell: {method: dense}, vary: {seed: [1, 2, 3]}}`` is the list of
three cells. With a chain, the copies that one link trained are merged into one network, from which all copies of the next link
start. The merging is a cell of the same recipe with the overrides under ``merged`` on top.
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
CHAIN, VARY, MERGED = "chain", "vary", "merged"
SEED = "seed"
KEYS = (CELL, "take", "at", CHAIN, VARY, MERGED)
START = {WEIGHTS: "model.weights", MASKS: "targets.masks"}
"""Options at which a link of a chain takes what the link before it made."""
WEIGHTS_OF = START[WEIGHTS]
PHASE = ("phase", "with")  # what tables write in the place of a cell
EXAMPLE = "{cell: {method: dense, model: mlp}}"


@dataclass(frozen=True)
class CellRef:
    """One parent of a cell.

    overrides: of the parent, each ``key=value``.
    take:      ``weights``, ``masks`` or ``both``; None: what the option that holds the value usually takes.
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
        if VARY in value:
            refuse(f"{where}.{VARY}", "stands for several networks", "write it at model.weights, and a merge beside it")
        if MERGED in value:
            refuse(
                f"{where}.{MERGED}",
                f"is about the copies of a chain, and there are none without {VARY}",
                "leave it out",
            )
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
        """Plain containers that :meth:`of` reads as the same parent; where two overrides have one key, the later one counts."""
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


def _length(lists: Any, where: str, each: str, what: str, example: str) -> int:
    """How many values each key has in a mapping of lists. Raises ConfigError where it is none."""
    if not isinstance(lists, dict) or not lists or not all(isinstance(item, list) and item for item in lists.values()):
        refuse(f"{where}={short(spell(lists), 30)}", what, f"write {example}")
    lengths = {len(item) for item in lists.values()}
    if len(lengths) > 1:
        refuse(
            where, f"has lists of {' and '.join(map(str, sorted(lengths)))} values", f"give each key a value for {each}"
        )
    return lengths.pop()


def varied(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The cells that one with ``vary`` stands for, in the order of its values. where: its key. Raises ConfigError."""
    at, vary = f"{where}.{VARY}", value[VARY]
    own: Any = value.get(CELL)
    rest = {key: item for key, item in value.items() if key in ("take", "at")}
    if not isinstance(own, dict) or not own:
        _names_none(f"{where}={spell(value)}", where)
    number = _length(vary, at, "each network", "is no list of networks", f"{VARY}: {{seed: [1, 2, 3]}}")
    if number < 2:
        refuse(at, "names one network, of which nothing is merged", f"write two values or more, or leave {VARY} out")
    chain, merged = value.get(CHAIN), value.get(MERGED)
    if chain is None and MERGED in value:
        refuse(f"{where}.{MERGED}", "is about the links of a chain, and there is none", "leave it out")
    if chain is not None:
        links = _length(chain, f"{where}.{CHAIN}", "each link", "is no chain", f"{CHAIN}: {{sparsity: [0.5, 0.9]}}")
        if both := sorted(chain.keys() & vary.keys()):
            refuse(f"{at}.{both[0]}", "is what the links of the chain differ in", "leave one of them out")
        if WEIGHTS_OF in chain:
            refuse(f"{where}.{CHAIN}.{WEIGHTS_OF}", "is what a chain hands on", "leave it out")
        if not isinstance(merged, dict) or not merged:
            fix = f"add {MERGED}: {{merge: uniform, trainer.max_steps: 0}}"
            refuse(f"{where}.{CHAIN}", f"nothing makes one network of the {number} before each link", fix)
        own = {**own, **{key: item[-1] for key, item in chain.items()}}
        if links > 1:
            before = {key: item[:-1] for key, item in chain.items()}
            copies = {CELL: value[CELL], VARY: vary, CHAIN: before, MERGED: merged, **rest}
            soup = {**value[CELL], **{key: item[-2] for key, item in chain.items()}, **merged, WEIGHTS_OF: copies}
            own = {**own, WEIGHTS_OF: {CELL: soup, **rest}}
    return [{CELL: {**own, **{key: item[i] for key, item in vary.items()}}, **rest} for i in range(number)]


def several(value: Any, where: str) -> Any:
    """A value with the cells that ``vary`` stands for in its place, in a list; any other value as it is."""
    if _varies(value):
        return varied(value, where)
    if isinstance(value, list) and any(map(_varies, value)):
        return [cell for item in value for cell in (varied(item, where) if _varies(item) else [item])]
    return value


def _varies(value: Any) -> bool:
    return isinstance(value, dict) and VARY in value and CELL in value


def _last_link(own: dict[str, Any], chain: Any, take: str | None, where: str) -> dict[str, Any]:
    """Overrides of a chain's last cell, with the rest of the chain as its parent. chain: a list of values for each key."""
    at, start = f"{where}.{CHAIN}", START[MASKS if take == MASKS or where == START[MASKS] else WEIGHTS]
    links = _length(chain, at, "each link", "is no chain", f"{CHAIN}: {{optim.lr: [0.1, 0.01]}}")
    if start in chain:
        refuse(f"{at}.{start}", "is what a chain hands on", "leave it out")
    last = {**own, **{key: item[-1] for key, item in chain.items()}}
    if links == 1:
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
    """The value of the key ``where`` with its cells as plain containers, whichever form they had.

    Copies stay one mapping: as a list, copies of copies would be longer by their number in each link.
    """
    if _varies(value):
        varied(value, where)  # what is wrong with it is said here
        return {**value, CELL: CellRef.of({CELL: value[CELL]}, where).tree()[CELL]}
    if names_cell(value) and not names_phase(value):
        return CellRef.of(value, where).tree()
    return [plain_cells(item, where) for item in value] if isinstance(value, list) else value


def reseeded(override: str, seed: int, other: int | str) -> str:
    """An override of a cell of the seed ``seed`` for one of the seed ``other``.

    The cells that it names, and those that they name, get the other seed where they have that one. Raises ConfigError.
    """
    if CELL not in override and not override.startswith("seed="):
        return override
    return once(("reseeded", override, seed, other), lambda: _override(override, seed, other))  # cells share parents


def _override(override: str, seed: int, other: int | str) -> str:
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
    if _varies(value):
        own = _reseeded({CELL: value[CELL]}, where, seed, other)[CELL]
        said_there = {word: value[word] for word in (VARY, CHAIN, MERGED) if word in value}
        return {**value, **{word: _with_seed(lists, seed, other) for word, lists in said_there.items()}, CELL: own}
    if not names_cell(value):  # a mapping, such as a network of a dataset's, may hold a cell further down
        own = value.items() if isinstance(value, dict) else ()
        return {key: _reseeded(item, f"{where}.{key}", seed, other) for key, item in own} if own else value
    ref = CellRef.of(value, where)
    return replace(ref, overrides=tuple(reseeded(text, seed, other) for text in ref.overrides)).tree()


def _with_seed(values: Any, seed: int, other: int | str) -> Any:
    """Return lists of values (of ``vary``, say) with the seed ``other`` in the place of the seed ``seed``."""
    if not isinstance(values, dict) or SEED not in values:
        return values
    own = values[SEED]
    if isinstance(own, list):
        return {**values, SEED: [other if type(item) is int and item == seed else item for item in own]}
    return {**values, SEED: other if type(own) is int and own == seed else own}


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
