"""Overrides as typed, read one by one, with all their issues found at once.

Hydra stops at the first issue and suggests nothing; here the overrides are looked at before Hydra sees them.
"""

from __future__ import annotations

import itertools
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from sparselab.config.members import flatten, known_groups, optional, tree_of
from sparselab.config.plain import literal, quoted, read, repeated
from sparselab.config.schema import SEVERAL
from sparselab.config.trees import TABLE
from sparselab.config.user_configs import scan
from sparselab.core import plugins
from sparselab.core.errors import ConfigError, Issue, Issues, did_you_mean, nearest, refuse, short, spell
from sparselab.core.memo import once
from sparselab.core.renames import now_called

KEY = re.compile(r"[A-Za-z_][\w-]*([./][A-Za-z_][\w-]*)*", re.ASCII)
LONGEST = 10_000  # characters of one override; a cell that starts from cells names them in it
PLAIN_CHOICE = re.compile(r"[\w.:/+*-]+", re.ASCII)
LONGEST_FIX = 80  # characters of an advice that no line cuts off
HINTS = {"model": " (any network of timm: model=timm model.arch=NAME)"}  # groups with members that take a name
ADD_M = "add -m (python run.py -m …)"


Groups = dict[str, list[str]]  # members by group


@dataclass
class Checked:
    """Overrides that mean something, and issues of those that do not.

    choices: ``group=member``, for Hydra. values: (key, value, as typed), to be set in this order. tree: the config of
    the choices. invalid: top-level keys that are not what was asked for, so nothing should be concluded from them.
    """

    choices: list[str] = field(default_factory=list)
    values: list[tuple[str, Any, str]] = field(default_factory=list)
    tree: dict[str, Any] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)
    invalid: set[str] = field(default_factory=set)


def check(overrides: list[str], search_path: str | None = None) -> Checked:
    """The overrides of one cell. Raises ConfigError only for a ``search_path`` that cannot be used at all."""
    once(("scan", search_path), lambda: scan(search_path))
    known, issues, out = once(("groups", search_path), lambda: known_groups(search_path)), Issues(), Checked()
    chosen: dict[str, str] = {}
    values: list[tuple[str, Any, str]] = []
    for text in overrides:
        try:
            key, item = _read(text)
        except ConfigError as refused:
            issues.found += refused.issues
            out.invalid.add(_head(text, known))
            continue
        if (today := now_called(text)) != text and not _is_there(key, item, known):
            issues.add(short(text), "has another name now", f"write {short(today)}")
            out.invalid.add(_head(today, known))
        elif _is_hydra(key):
            issues.add(short(text), "Hydra's settings say how a sweep runs", f"{ADD_M}, or leave it out")
        elif item.package is not None:
            issues.add(short(text), "a group's place cannot be changed", f"write {key}=MEMBER")
        elif item.is_sweep_override():
            issues.add(short(text), "is a sweep over several values", f"{ADD_M}, or put the value in quotes")
            out.invalid.add(_head(key, known))
        elif key in known and not item.is_add() and not item.is_delete():
            chosen.pop(key, None)
            if key == TABLE and item.value() is not None:
                out.invalid |= {*known, "sparsity"}  # the table says them
            if not _choice(issues, key, item.value(), known[key]):
                out.invalid.add(key)
            elif key == TABLE and item.value() is not None:
                fix = f"add -m: python run.py -m {key}={item.value()} tier=cpu"
                issues.add(f"{key}={item.value()}", "names a whole table, not a cell", fix)
            elif item.value() is not None:
                chosen[key] = f"{key}={_members(item.value())}"
        else:
            values.append((key, item, text))
    out.choices = list(chosen.values())
    try:
        out.tree = tree_of(out.choices, search_path)
    except ConfigError as refused:
        out.issues = [*issues.found, *refused.issues]
        out.tree, out.choices, out.invalid = tree_of([]), [], {*known}
        return out
    keys = once(("keys", *out.choices, search_path), lambda: dict(flatten(out.tree)))
    _check_values(values, out, keys, issues, known)
    out.issues = issues.found
    if out.issues and not {"method", "sparsity"} & {_head(text, known) for text in overrides}:
        out.invalid.add("sparsity")  # a sparsity that the default method lacks is no fault of the overrides
    return out


def _check_values(
    values: list[tuple[str, Any, str]], out: Checked, keys: dict[str, Any], issues: Issues, known: Groups
) -> None:
    """Sort ``values`` into those that set a key of the tree (``keys``: all of them, with dots) and issues."""
    invalid = frozenset(out.invalid)
    for key, item, text in values:
        head = key.split(".")[0]
        if item.is_add() or item.is_delete():
            problem = "keys cannot be removed" if item.is_delete() else "new keys are not allowed here"
            hit, fix = (key, f"write {key}=…") if key in keys else suggest(key, keys, known)
            fix = f"write {plugins.KEY}=[mine.py], without a sign before it" if key == plugins.KEY else fix
            issues.add(short(text.partition("=")[0]), problem, fix)
            out.invalid.add((hit or key).split(".")[0])
        elif head in invalid and head in known:
            continue  # its group is not known, so neither are its keys
        elif head in known and "." in key and out.tree.get(head) is None:
            issues.add(short(key), f"no {head} is chosen", f"add {head}=NAME, as in {head}={known[head][0]}")
            out.invalid.add(head)
        elif key not in keys:
            hit, fix = suggest(key, keys, known)
            issues.add(short(key or text), "no such key", fix)
            out.invalid.add((hit or key).split(".")[0])
        elif key == f"{head}.name" and head in known:
            fix = f"write {head}=NAME, as in {head}={known[head][0]}"
            issues.add(short(text), f"is fixed by the choice of {head}", fix)
            out.invalid.add(head)
        elif isinstance(keys[key], dict) and not isinstance(item.value(), dict):
            inner = next((k for k in keys if k.startswith(key + ".")), None)
            fix = f"write for example {inner}=…" if inner else f"write {key}={{…}}"
            issues.add(short(text), "is a group of keys, not a value", fix)
            out.invalid.add(head)
        else:
            out.values.append((key, _typed(item.value(), keys[key], text), text))


def _is_there(key: str, item: Any, known: Groups) -> bool:
    """True if the group has the member that an override chooses: a user's own may have a name that the project once used."""
    return item.value() in known[key] if key in known and not item.is_sweep_override() else key.split(".")[0] in known


def _typed(value: Any, present: Any, text: str) -> Any:
    """A number given for a text stays the text that was typed: ``runs_dir=2024``, ``trainer.precision=16``."""
    if isinstance(present, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return text.partition("=")[2].strip()
    return value


def said(text: str) -> tuple[str, Any]:
    """(key, value) of one override. Raises ConfigError where it cannot be read."""
    key, item = _read(text)
    return key, item.value()


def _read(text: str) -> tuple[str, Any]:
    """(key, Hydra's reading) of one override; ConfigError where it cannot be read."""
    return once(("read", text), lambda: _parse(text))  # a millisecond, and cells share most of their overrides


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    at = short(text)
    if not text.strip():
        refuse("''", "is an empty argument", "remove it, or write key=value")
    if len(text) > LONGEST:
        refuse(at, f"has {len(text):,} characters", f"at most {LONGEST:,}; larger values belong in a file")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        refuse(at, "holds a line break or another control character", "remove it")
    if "${" in text:
        refuse(at, "interpolations are not taken from the command line", "write the value itself")
    if "_target_" in text:
        refuse(at, "classes cannot be named in a config", "choose a member of a group, such as model=vit_s")
    if not equals and not text.startswith("~"):
        if not KEY.fullmatch(key):
            refuse(at, "is not key=value", "no spaces around the equals sign: sparsity=2:4")
        refuse(at, "has no value", f"write {short(key, 30)}=…")
    if (name := repeated(text)) is not None:
        refuse(at, f"names {name} twice", "keep one of the two")
    if (plain := read(text)) is not None:
        return plain.key_or_group, plain
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        item = OverridesParser.create().parse_override(text)
        if not item.is_sweep_override():
            item.value()
        if not item.key_or_group:
            raise ValueError("no key")
    except (HydraException, RecursionError, ValueError):
        if (itself := literal(text)) is not None:
            return itself.key_or_group, itself
        raise ConfigError([_unreadable(text, key, value)]) from None
    return item.key_or_group, item


def _unreadable(text: str, key: str, value: str) -> Issue:
    at, bare = short(text), key.lstrip("+~")
    name = short(bare, 30)
    if not KEY.fullmatch(bare):
        return Issue(at, f"'{name}' is not a key", "keys are words with dots: trainer.max_epochs=3")
    odd = any(value.count(a) != value.count(b) for a, b in ("()", "[]", "{}")) or any(value.count(q) % 2 for q in "'\"")
    if odd:
        return Issue(at, "has a quote or bracket that is not closed", f"write {name}=… with pairs of them")
    if re.fullmatch(r"\w+\(.*\)", value):
        return Issue(at, "is not a function that can be used here", "write the value itself")
    if value.endswith(",") or value.startswith("="):
        return Issue(
            at, f"has {'a comma' if value.endswith(',') else 'an equals sign'} too many", f"write {name}=VALUE"
        )
    if re.search(r"\{\w+\}", value):
        return Issue(at, "phases have names in tables only", f"write '{name}={{cell: {{method: dense, model: mlp}}}}'")
    if value.startswith(("[", "{")):
        return Issue(at, "is not a list or a mapping that can be read", "as in [1, a] or {a: 1}, with plain keys")
    fix = f"write {shlex.quote(f'{bare}={_in_quotes(value)}')}"
    if len(fix) > LONGEST_FIX:  # cut off, it would be no advice
        fix = f"""put the value in quotes, and all in others: '{name}="…"'"""
    return Issue(at, "holds characters that need quotes", fix)


def _in_quotes(value: str) -> str:
    """A value as a quoted string, in quotes of the kind that does not occur in it, if there is one.

    In a sweep each value is quoted by itself: names or paths between commas (a single path may hold a comma).
    """
    choices = value.split(",")
    if len(choices) > 1 and not set(value) & set("'\"[]{}()") and len({"/" in choice for choice in choices}) == 1:
        return ",".join(choice if PLAIN_CHOICE.fullmatch(choice) else _in_quotes(choice.strip()) for choice in choices)
    return quoted(value) if '"' in value or "\\" in value else f'"{value}"'


def _choice(issues: Issues, key: str, value: Any, members: list[str]) -> bool:
    """True if ``value`` names members of the group ``key``."""
    if value is None and key in optional():
        return True
    if isinstance(value, dict):
        issues.add(f"{key}={{…}}", "a group takes the name of a member", did_you_mean("", members))
        return False
    if isinstance(value, list) and key not in SEVERAL:
        issues.add(short(f"{key}={spell(value)}"), "takes one member, not a list", did_you_mean("", members))
        return False
    good = True
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and name in members:
            continue
        good = False
        problem = f"no such {key}" if name not in ("", None) else "names no member"
        fix = did_you_mean(spell(name), members, 6) + HINTS.get(key, "")
        issues.add(short(f"{key}={spell(name)}"), problem, fix)
    return good


def _members(value: Any) -> str:
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)


def suggest(key: str, keys: dict[str, Any], known: Groups) -> tuple[str | None, str]:
    """(the key that was probably meant or None, the fix to print) for a key that is not there."""
    head, _, leaf = key.rpartition(".")
    first, *rest = key.split(".")
    if first in SEVERAL and rest:
        members = known.get(first, [])
        return first, f"add {first}=[{rest[0]}]" if rest[0] in members else did_you_mean(rest[0], members)
    settable = {k: v for k, v in keys.items() if not (k.endswith(".name") and k.split(".")[0] in known)}
    beside = {k.rpartition(".")[2]: k for k in settable if k.rpartition(".")[0] == head}
    leaves: dict[str, str] = {}
    for one in settable:
        leaves.setdefault(one.rpartition(".")[2], one)
    if leaf in leaves:
        hit: str | None = leaves[leaf]
    elif near := nearest(leaf, beside):
        hit = beside[near]
    elif isinstance(keys.get(head), dict):  # the group is right, and has nothing like it
        return None, did_you_mean("", beside.values()) if beside else f"leave it out: {head} has no settings here"
    else:
        hit = head if head in keys else nearest(key, settable)
    if hit:
        return hit, f'did you mean "{hit}"?'
    return None, did_you_mean("", [k for k in settable if "." not in k])


def expand(overrides: list[str]) -> tuple[list[list[str]], list[str]]:
    """(the cells of a sweep, Hydra's own overrides). Raises ConfigError with every override that cannot be swept."""
    from hydra.errors import HydraException

    issues = Issues()
    axes: list[list[str]] = []
    own: list[str] = []
    for text in overrides:
        with issues.collect():
            key, item = _read(text)
            if _is_hydra(key):
                if not re.match(r"hydra(/launcher$|\.launcher\.|\.sweep\.(dir|subdir)$|\.verbose$)", key):
                    fix = "hydra/launcher and hydra.launcher.… say how a sweep runs"
                    if key.startswith("hydra.job.env_set."):
                        fix = f"write {key.removeprefix('hydra.job.env_set.')}=… before the command: jobs inherit it"
                    refuse(short(text), "cannot be changed", fix)
                own.append(text)
            elif item.is_sweep_override():
                try:
                    axes.append([f"{key}={value}" for value in item.sweep_string_iterator()])
                except (HydraException, ValueError, TypeError):
                    refuse(short(text), "its values cannot be listed", f"write them: {short(key, 30)}=a,b")
            else:
                axes.append([text])
    issues.raise_if_any()
    return [list(cell) for cell in itertools.product(*axes)], own


def for_hydra(overrides: list[str]) -> list[str]:
    """The same overrides as Hydra takes them: mappings are added by force, and groups set to null are left out."""
    out = []
    for text in overrides:
        key, item = _read(text)
        value = None if item.is_sweep_override() else item.value()
        if key in optional() and value is None and not item.is_sweep_override():
            continue
        if literal(text) is not None:
            text = f"{key}={quoted(str(value))}"
        out.append(f"++{text.lstrip('+')}" if isinstance(value, dict) else text)
    return out


def _is_hydra(key: str) -> bool:
    return re.split(r"[./]", key)[0] == "hydra"


def _head(key: str, known: Groups) -> str:
    """The top-level key that an override is about, as far as it can be told."""
    word = re.split(r"[.=/@]", key.lstrip("+~"))[0].strip()
    return nearest(word, [*known, "sparsity", "seed", "targets"]) or word
