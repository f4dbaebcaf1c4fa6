"""What Hydra composed, kept between processes: composing takes a tenth of a second, a report needs hundreds of trees.

A tree is a function of the choices, of the files under ``configs/`` and of Hydra, and all of these are in its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparselab.spec.cachefolder import cache_folder

DAYS = 30  # after which trees of other files are dropped


def kept(choices: tuple[str, ...], configs: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The tree of ``choices``: from the cache where a whole copy lies there, else from ``make()``."""
    path = cache_folder() / "trees" / fingerprint(configs) / f"{_hash(json.dumps(choices))[:32]}.json"
    tree = _read(path, choices)
    if tree is None:
        tree = make()
        with contextlib.suppress(OSError):
            _write(path, choices, tree)
    return tree


@lru_cache(maxsize=4)  # once a process: whoever edits a file starts the command again
def fingerprint(configs: Path) -> str:
    """A name for the text of every file under ``configs`` and for what reads them."""
    seen = hashlib.sha256(f"{version('hydra-core')} {version('omegaconf')}".encode())
    for path in sorted(configs.rglob("*.yaml")):
        data = path.read_bytes()
        seen.update(f"\n{path.relative_to(configs).as_posix()} {len(data)}\n".encode() + data)
    return seen.hexdigest()[:32]


def _read(path: Path, choices: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        text = path.read_text()
        seal, _, body = text.partition("\n")
        item = json.loads(body)
    except (OSError, ValueError):  # missing, not text, not JSON
        return None
    if seal != _hash(body) or item["choices"] != list(choices):
        return None
    tree: dict[str, Any] = item["tree"]
    return tree


def _write(path: Path, choices: tuple[str, ...], tree: dict[str, Any]) -> None:
    body = json.dumps({"choices": choices, "tree": tree})
    if json.loads(body)["tree"] != tree:  # a key that is no text, say
        return
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_old(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{_hash(body)}\n{body}")
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _drop_old(current: Path) -> None:
    """Folders of other fingerprints that got no tree for a month."""
    for folder in current.parent.iterdir():
        if folder != current and folder.stat().st_mtime < time.time() - DAYS * 86_400:
            shutil.rmtree(folder, ignore_errors=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
