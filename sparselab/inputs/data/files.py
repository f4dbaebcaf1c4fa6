"""Cheap checks and fingerprints of local files; every miss is a one-line refusal [no torch]."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from sparselab.core.errors import refuse
from sparselab.core.memo import once

_PARQUET = b"PAR1"


def short(path: str | Path, limit: int = 48) -> str:
    """The END of a path that is too long for a one-line message."""
    text = str(path)
    return text if len(text) <= limit else "…" + text[1 - limit :]


def check_file(path: Path, where: str) -> None:
    """Refuse a file that is missing, empty or not readable."""
    if not path.is_file():
        refuse(where, f"{short(path)} does not exist", "restore it, or remove its folder to load from the hub")
    if not os.access(path, os.R_OK):
        refuse(where, f"{short(path)} cannot be read", "give yourself read permission (chmod u+r)")
    if path.stat().st_size == 0:
        refuse(where, f"{short(path)} is empty", "copy the file again")


def check_parquet(path: Path, where: str) -> None:
    """Refuse what cannot be a whole parquet file: magic at both ends, and a footer that fits between them."""
    check_file(path, where)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    whole = head == _PARQUET and tail[4:] == _PARQUET and 0 < int.from_bytes(tail[:4], "little") <= size - 12
    if not whole:
        refuse(where, f"{short(path)} is cut short or not a parquet file", "copy the file again")


def content_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over names and bytes, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        one = once(("bytes of", path), partial(_file_hash, path))
        total.update(f"{path.name}\0{one}\n".encode())
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing_hash(entries: Sequence[tuple[str, int]]) -> str:
    """SHA-256 over (relative path, size) pairs, for sets too large to read at planning time."""
    total = hashlib.sha256()
    for relative, size in entries:
        total.update(f"{relative}\0{size}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def holds(path: Path, marker: bytes, within: int = 1 << 16) -> bool:
    """True if ``marker`` occurs near the file's beginning.

    Encoded images lie in a parquet file as they are (they do not compress), so their signature tells the format without
    the second that a parquet reader takes to import.
    """
    with path.open("rb") as file:
        return marker in file.read(within)
