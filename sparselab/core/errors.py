"""One line per fault: where, what is wrong, and how to fix it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

WIDTH = 160


@dataclass(frozen=True)
class Issue:
    """A reason to refuse a request.

    ``where`` names the key (and the value as the user wrote it), ``problem`` what is wrong, ``fix`` what to write.
    """

    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        where, problem, fix = (_plain(part) for part in (self.where, self.problem, self.fix))
        # What is too long loses the end of a long value, then of the problem: the fix is what a reader needs.
        where = _cut(where, len(f"{where}: {problem} — {fix}") - WIDTH, at_least=40)
        problem = _cut(problem, len(f"{where}: {problem} — {fix}") - WIDTH, at_least=30)
        line = f"{where}: {problem} — {fix}"
        return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _plain(text: str) -> str:
    """One line without what a terminal would act upon or cannot encode."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _cut(text: str, excess: int, at_least: int) -> str:
    """``text`` without ``excess`` characters of its end; of a path that has lost its beginning, without more of that."""
    if excess <= 0 or len(text) <= at_least:
        return text
    head, mark, tail = text.partition("…")
    room = max(len(text) - excess, at_least) - 1
    return f"{head}…{tail[len(text) - room - 1 :]}" if mark and room > len(head) else text[:room] + "…"


class ConfigError(Exception):
    """A request that cannot be met. Carries every fault found; the entry points print them and exit with 2."""

    def __init__(self, issues: Iterable[Issue]):
        self.issues = list(dict.fromkeys(issues))
        super().__init__("\n".join(map(str, self.issues)))


class RunFailed(Exception):
    """A run that started and could not finish. The entry points print its line and exit with 1."""


class Stopped(Exception):
    """A run that was asked to stop and can be resumed. The entry points exit with 75."""


def refuse(where: str, problem: str, fix: str) -> NoReturn:
    """Raise :class:`ConfigError` with one fault."""
    raise ConfigError([Issue(where, problem, fix)])


@dataclass
class Issues:
    """Collects faults, so that one pass over a config reports all of them."""

    found: list[Issue] = field(default_factory=list)

    def add(self, where: str, problem: str, fix: str) -> None:
        self.found.append(Issue(where, problem, fix))

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collect the faults of a :class:`ConfigError` raised inside instead of letting it through."""
        try:
            yield
        except ConfigError as refused:
            self.found += refused.issues

    def raise_if_any(self) -> None:
        if self.found:
            raise ConfigError(self.found)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``word``, or None where nothing is close.

    Names that begin with the same whole word come first: ``vit_s`` is what ``vit_small`` means, and not ``lstm_small``.
    """
    folded, word = {c.lower(): c for c in choices}, word.lower()
    kin = [c for c in folded if re.split("[_-]", c)[0] == re.split("[_-]", word)[0]]
    shortened = [c for c in kin if _abbreviates(c, word) or _abbreviates(word, c)]
    for pool, cutoff in ((shortened, 0.0), (kin, 0.5), (list(folded), 0.5)):
        if hits := difflib.get_close_matches(word, pool, n=1, cutoff=cutoff):
            return folded[hits[0]]
    return None


def _abbreviates(name: str, long: str) -> bool:
    """True if each word of ``name`` begins the word of ``long`` in its place: ``vit_s`` of ``vit_small_patch16``."""
    words, longer = re.split("[_-]", name), re.split("[_-]", long)
    return len(words) <= len(longer) and all(b.startswith(a) for a, b in zip(words, longer, strict=False))


def did_you_mean(word: str, choices: Iterable[str], limit: int = 8) -> str:
    """The ``fix`` half of a fault about an unknown word: the nearest choice, or the choices themselves."""
    choices = sorted(choices)
    hit = nearest(word, choices)
    if hit is not None:
        return f'did you mean "{hit}"?'
    shown = ", ".join(choices[:limit]) + (", …" if len(choices) > limit else "")
    return f"one of: {shown}"


def short(text: str, limit: int = 50) -> str:
    """The beginning of a text that is too long for a line."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def spell(value: Any) -> str:
    """A value as it is written in a config: ``null``, ``true``, ``[1,2]``, ``{a: 1, b: 2}``; a text as it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(spell, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {spell(v)}" for k, v in value.items()) + "}"
    return str(value)
