"""Trees that Hydra composed, kept between processes: composing takes a tenth of a second, a report needs hundreds of trees.

A tree is a function of the choices, of the files under ``configs/`` and of Hydra, and all of these are in its name. Files of
papers' tables are left out: no choice reads them, and they change more often than all others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparselab.core import cache_folder

TABLE = "paper"
"""The group whose members are tables of cells: they belong to no tree."""

DAYS = 30  # after which trees of other files are dropped


def kept(choices: tuple[str, ...], configs: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The tree of ``choices``: from the cache where a whole copy lies there, else from ``make()``.

    Nothing that happens to the cache is an error: then the tree is made, and not kept.
    """
    if any(choice.startswith(f"{TABLE}=") for choice in choices):
        return make()
    with contextlib.suppress(*cache_folder.MISHAPS):
        if (tree := _read(_path(choices, configs), choices)) is not None:
            return tree
    tree = make()
    with contextlib.suppress(*cache_folder.MISHAPS):
        if fingerprint(configs) == _at_start(configs):  # else it may be of files that were edited meanwhile
            _write(_path(choices, configs), choices, tree)
    return tree


def _path(choices: tuple[str, ...], configs: Path) -> Path:
    return Path("trees") / _at_start(configs) / f"{hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:32]}.json"


def fingerprint(configs: Path) -> str:
    """A name for the text of all files under ``configs`` but tables, and for what reads them. OSError for an unreadable one."""
    seen = hashlib.sha256(f"{version('hydra-core')} {version('omegaconf')}".encode())
    for folder, folders, names in os.walk(configs):
        folders[:] = sorted(name for name in folders if Path(folder, name) != configs / TABLE)
        if any(Path(folder, name).is_symlink() for name in folders):
            raise OSError("a linked folder, whose files are not looked at")
        for name in sorted(names):
            if name.endswith(".yaml"):
                data = Path(folder, name).read_bytes()
                seen.update(f"\n{Path(folder, name).relative_to(configs).as_posix()} {len(data)}\n".encode() + data)
    return seen.hexdigest()[:32]


@lru_cache(maxsize=4)
def _at_start(configs: Path) -> str:
    """A process goes by the files that it met: whoever edits one starts the command again."""
    return fingerprint(configs)


def _read(path: Path, choices: tuple[str, ...]) -> dict[str, Any] | None:
    item = cache_folder.read(path)
    if not isinstance(item, dict) or item.get("choices") != list(choices):
        return None
    tree: dict[str, Any] = item["tree"]
    return tree


def _write(path: Path, choices: tuple[str, ...], tree: dict[str, Any]) -> None:
    if json.loads(json.dumps(tree)) != tree:  # a key that is no text, say
        return
    if not (folder := cache_folder.cache_folder() / path.parent).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _drop_old(folder)
    cache_folder.write(path, {"choices": choices, "tree": tree})


def _drop_old(current: Path) -> None:
    """Folders of other fingerprints that got no tree for a month."""
    for folder in current.parent.iterdir():
        if folder != current and folder.stat().st_mtime < time.time() - DAYS * 86_400:
            shutil.rmtree(folder, ignore_errors=True)
