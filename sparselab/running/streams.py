"""Standard streams that cost no result: they may be closed, take ASCII only, or lose their reader while a cell runs."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

PLAIN = {"→": "->", "—": "-", "–": "-", "·": "|", "…": "...", "×": "x", "≤": "<=", "±": "+/-"}


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by their nearest in ASCII, and letters by escapes, as standard error does."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


codecs.register_error("sparselab", _spelled)


class Unfailing:
    """A text stream whose writes are lost, not raised, where nobody reads them or the disk under them is full."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


@contextmanager
def steady() -> Iterator[None]:
    """Inside, nothing that is printed fails for its characters, and nothing on standard error at all.

    A descriptor that was closed is opened on the null device first: else a file of the run could get its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="sparselab")
    if sys.stdout is None:
        sys.stdout = _nowhere()
    sys.stderr = Unfailing(sys.stderr or _nowhere())
    try:
        yield
    finally:
        sys.stdout, sys.stderr = (old or new for old, new in zip(before, (sys.stdout, sys.stderr), strict=True))
