"""Overrides that are read without a grammar: a key and a number, a word, a quoted text, or a list or mapping of these.

A shortcut: what is read here reads as it would in Hydra (a test asks it); everything else is Hydra's. Measured on the 1,196
different overrides of all tables: 0.02 ms for each here, 1.2 ms in Hydra's parser, whose import takes a sixth of a second
besides. Without it `sparselab check` (0.85 s of processor) would take longer than the second it may take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparselab.core.containers import copied
from sparselab.core.errors import spell

WORD = r"[A-Za-z_]\w*"
KEY = rf"{WORD}(?:(?:\.{WORD})*|(?:/{WORD})*)"
INT = r"-?(?:0|[1-9]\d*)"
NUMBER = rf"{INT}\.\d+(?:e-?\d+)?|{INT}e-?\d+"
WORDS = rf"{WORD}(?:[/.-]\w+)*"
PATTERN = r"[1-9]\d*:[1-9]\d*|[a-z]\w*:\d+|[a-z]\w*:(?:[1-9]\d*x[1-9]\d*:)?0\.\d+"
QUOTED = r"'(?:[^'\\]|\\+[^'\\]|(?:\\\\)*\\')*'"
DOUBLE = r'"[@\w*. -]*"'
INNER = rf"(?:{INT}|{NUMBER}|{PATTERN}|{WORD}|@{WORD}|{DOUBLE})"
ENTRY = rf"@?{WORD}: {INNER}"
LIST = rf"\[(?:{INNER}(?:, ?{INNER})*)?\]"
MAPPING = rf"\{{{ENTRY}(?:, {ENTRY})*\}}"
POINT = r"(?:0|[1-9]\d*)epochs"
HELD = re.compile(rf"(?:{NUMBER}|{POINT}|{INT}|{PATTERN}|{WORDS}|@{WORD}|{QUOTED}|{DOUBLE})(?=, |[\]}}])", re.ASCII)
NAMED = re.compile(rf"(@?{WORD}(?:[./]{WORD})*): ", re.ASCII)

PLAIN = re.compile(f"({KEY})=({INT}|{NUMBER}|{WORDS}|{PATTERN}|{QUOTED}|{DOUBLE}|{LIST}|{MAPPING})", re.ASCII)
LITERAL = re.compile(rf"((?a:{KEY}))=((cell:).*|[\w./~+-]+)")
DEEP = re.compile(rf"({KEY})=([\[{{].*[\]}}])", re.ASCII)
BARE = re.compile(rf"{WORDS}|{POINT}|{PATTERN}|@{WORD}", re.ASCII)
WHOLE, BROKEN = re.compile(INT), re.compile(NUMBER, re.ASCII)
ESCAPED = re.compile(r"(\\+)'")  # backslashes count double before a quote, and only there
DEEPEST = 30  # levels of mappings and lists in which a key is looked for; phases of phases need six
MEANING = {"null": None, "true": True, "false": False}


@dataclass(frozen=True)
class Plain:
    """One override, with as much of the interface of Hydra's as is used: it sets a key to a value."""

    key_or_group: str
    held: Any
    package: None = None

    def value(self) -> Any:
        return copied(self.held)

    def is_add(self) -> bool:
        return False

    def is_delete(self) -> bool:
        return False

    def is_sweep_override(self) -> bool:
        return False

    def sweep_string_iterator(self) -> Iterator[str]:
        raise TypeError(f"{self.key_or_group} is no sweep")


def read(text: str) -> Plain | None:
    """The override ``text``; None where Hydra has to read it."""
    found = PLAIN.fullmatch(text)
    if found is None:
        return _deep(text)
    key, value = found.groups()
    try:
        if value[0] == "[":
            return Plain(key, [_scalar(item.strip()) for item in value[1:-1].split(",")] if value != "[]" else [])
        if value[0] == "{":
            pairs = [item.split(": ") for item in value[1:-1].split(", ")]
            if any(_scalar(name) is not name for name, _ in pairs):  # null and true are no texts
                return None
            return Plain(key, {name: _scalar(item) for name, item in pairs})
        return Plain(key, _scalar(value))
    except ValueError:
        return None


def _deep(text: str) -> Plain | None:
    """An override whose value is a mapping or a list that holds some of their kind; None where Hydra has to read it."""
    found = DEEP.fullmatch(text)
    if found is None:
        return None
    try:
        value, end = _held(found[2], 0)
    except (ValueError, RecursionError):
        return None
    return Plain(found[1], value) if end == len(found[2]) else None


def _held(text: str, at: int) -> tuple[Any, int]:
    """(the value that begins at ``at``, where it ends); ValueError where it is not plain."""
    if text[at : at + 1] == "{":
        return _mapping(text, at + 1)
    if text[at : at + 1] == "[":
        return _list(text, at + 1)
    found = HELD.match(text, at)
    if found is None:
        raise ValueError(text)
    return _scalar(found[0]), found.end()


def _mapping(text: str, at: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    if text.startswith("}", at):
        return values, at + 1
    while True:
        found = NAMED.match(text, at)
        if found is None or _scalar(name := found[1]) is not name:  # null and true are no texts
            raise ValueError(text)
        values[name], at = _held(text, found.end())
        if text.startswith("}", at):
            return values, at + 1
        if not text.startswith(", ", at):
            raise ValueError(text)
        at += 2


def _list(text: str, at: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    while not text.startswith("]", at):
        if values:
            if not text.startswith(", ", at):
                raise ValueError(text)
            at += 2
        value, at = _held(text, at)
        values.append(value)
    return values, at + 1


def literal(text: str) -> Plain | None:
    """An override whose value Hydra wants in quotes, although it can mean itself only; else None.

    It is the overrides of another cell (``cell:method=dense model=mlp``, as a shell hands them over), or a name or path
    with letters beyond ASCII.
    """
    found = LITERAL.fullmatch(text)
    return Plain(found[1], found[2]) if found and not (found[2].isascii() and found[3] is None) else None


def quoted(text: str) -> str:
    """``text`` as a quoted string of Hydra's override grammar, where backslashes count before a quote only."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def written(value: Any) -> str:
    """A plain value as an override holds it; read again, it is the value. Mappings and lists need no quotes of their own."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(written, value)) + "]"
    if not isinstance(value, str):
        return spell(value)
    if BARE.fullmatch(value) and value.lower() not in (*MEANING, "nan", "inf"):
        return value
    return quoted(value) if set(value) & set('"\\') else f'"{value}"'


def repeated(text: str) -> str | None:
    """A key that a mapping gives twice, however it is written: Hydra keeps the last one and says nothing."""
    held = [choice.strip() for choice in _entries(text.partition("=")[2])]  # several, where a sweep goes over mappings
    for _ in range(DEEPEST):
        inner: list[str] = []
        for value in held:
            if value.startswith("[") and value.endswith("]"):
                inner += [entry.strip() for entry in _entries(value[1:-1])]
            elif value.startswith("{") and value.endswith("}"):
                pairs = [entry.partition(":") for entry in _entries(value[1:-1])]
                names = [name.strip(" '\"") for name, _, _ in pairs]
                for number, name in enumerate(names):
                    if name in names[:number]:
                        return name
                inner += [item.strip() for _, _, item in pairs]
        held = inner
    return None


def _entries(inside: str) -> Iterator[str]:
    """Yield the parts between commas, except commas in quotes and brackets."""
    entry, depth, quote = "", 0, ""
    for character in inside:
        if quote:
            quote = "" if character == quote and not entry.endswith("\\") else quote
        elif character in "'\"":
            quote = character
        elif character == "," and not depth:
            yield entry
            entry = ""
            continue
        else:
            depth += (character in "([{") - (character in ")]}")
        entry += character
    yield entry


def _scalar(text: str) -> Any:
    """ValueError for a word that is a number to Hydra."""
    if WHOLE.fullmatch(text):
        return int(text)
    if BROKEN.fullmatch(text):
        return float(text)
    if text[0] == "'":
        return ESCAPED.sub(lambda run: "\\" * (len(run[1]) // 2) + "'", text[1:-1])
    if text[0] == '"':
        return text[1:-1]
    if (lowered := text.lower()) in ("nan", "inf"):
        raise ValueError(text)
    return MEANING.get(lowered, text)
