"""What a training cell's id is a hash of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.spec.configs import copied
from sparselab.spec.memo import once
from sparselab.spec.schema import UNIDENTIFIED
from sparselab.store.ids import cell_id

if TYPE_CHECKING:
    from sparselab.engines.train.plan import Parts

ENGINE_VERSION = 1  # raise it when the loop, the feed or the seeds change what a cell gives


def identify(config: dict[str, Any], parts: Parts) -> str:
    """12 characters: content decides, not where it lies. Files count by their bytes, methods and terms by version."""
    identity = copied(config)
    for dotted in UNIDENTIFIED:
        *path, leaf = dotted.split(".")
        node = identity
        for key in path:
            node = node[key]
        node.pop(leaf, None)
    identity["sparsity"] = str(parts.sparsity)
    # Both limits are spent once the number of updates is known: ten epochs and as many updates are the same cell.
    for key in ("max_epochs", "max_steps"):
        identity["trainer"].pop(key)
    identity["trainer"]["updates"] = parts.steps
    files = {}
    for option, paths in parts.family.files().items():
        files[f"model.{option}"] = [_content(path, parts.needs) for path in paths]
        identity["model"].pop(option)
    for term in parts.terms:
        for option, path in term.files().items():
            files[f"term.{term.name}.{option}"] = _content(path, parts.needs)
            identity["term"][term.name].pop(option)
    for option in parts.dataset.places():
        identity["dataset"].pop(option)
    extra = {
        "engine": ENGINE_VERSION,
        "method": parts.method.version,
        "terms": {term.name: term.version for term in parts.terms},
        "data": parts.data.fingerprint,
        "files": files,
    }
    return cell_id(identity, extra)


def _content(path: str, needs: dict[str, str]) -> str:
    """What a file means: the cell that makes it, where the config names one, else its bytes."""
    return f"cell:{needs[path]}" if path in needs else once(("digest", path), lambda: _digest(path))


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
