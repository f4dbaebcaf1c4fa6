"""Arrays that cost seconds to decode, kept as ``.npy`` and read back memory-mapped [no torch].

They lie in :func:`~sparselab.core.cache_folder.cache_folder`: a damaged file is made again, and a folder that cannot be
written is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparselab.core.cache_folder import cache_folder

_count = itertools.count()


def array(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of ``key``: from the cache where a whole copy lies there, else from ``make()``.

    The mapping is copy-on-write, so the caller may write to the array without touching the file.
    """
    path = cache_folder() / f"{key}.npy"
    kept = _read(path)
    if kept is not None:
        return kept
    made = np.ascontiguousarray(make())
    with contextlib.suppress(OSError):
        _write(path, made)
    return made


def _read(path: Path) -> np.ndarray | None:
    try:
        kept = np.load(path, mmap_mode="c", allow_pickle=False)
        sealed = path.with_suffix(".sha256").read_text()
    except (OSError, ValueError, EOFError):  # missing, cut short, not an array
        return None
    return kept if sealed == _seal(kept) else None


def _write(path: Path, made: np.ndarray) -> None:
    """The seal is written last and names the content, so two writers or a kill leave a whole pair or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{next(_count)}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        temporary.replace(path)
        temporary.write_text(_seal(made))
        temporary.replace(path.with_suffix(".sha256"))
    finally:
        temporary.unlink(missing_ok=True)


def _seal(content: np.ndarray) -> str:
    head = f"{content.dtype.str}{content.shape}".encode()
    return hashlib.sha256(head + hashlib.sha256(np.ascontiguousarray(content).data).digest()).hexdigest()
