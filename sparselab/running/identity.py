"""The values that a cell's id is a hash of: content decides, never where it lies or how it runs [no torch]."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparselab.config.schema import UNIDENTIFIED
from sparselab.core import plugins
from sparselab.core.containers import copied
from sparselab.core.errors import ConfigError, refuse, short
from sparselab.core.memo import once
from sparselab.core.options import Options, bare, is_off
from sparselab.core.registry import REGISTRIES
from sparselab.core.sparsity import Sparsity


def identified(config: dict[str, Any], schema: type[Options]) -> dict[str, Any]:
    """A copy of the config without what never changes a result, and without what is off and came later.

    schema: of the config's top level. What is off is marked on the option's own field (:func:`sparselab.core.options.off`).
    """
    identity = copied(config)
    for dotted in UNIDENTIFIED:
        *path, leaf = dotted.split(".")
        node = identity
        for key in path:
            node = node.get(key) or {}  # a group that is null has no options
        node.pop(leaf, None)
    _leave_out(identity, schema)
    if used := plugins_of(config):
        identity["plugins"] = used
    return identity


def plugins_of(config: dict[str, Any]) -> dict[str, str]:
    """Digests of the plug-ins whose members a config names, by the plug-in's name."""
    return plugins.using(_members(config)) if plugins.loaded() else {}


def _members(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of every registered member that a config may mean, and of some that it does not.

    They are told by its groups, by what is called a name anywhere, and by its sparsities.
    """
    for key, value in config.items():
        if key in REGISTRIES and isinstance(value, dict):
            yield from ((key, name) for name in ([value["name"]] if "name" in value else value))
    inner = [config]
    for node in inner:
        inner += [value for value in node.values() if isinstance(value, dict)]
        if isinstance(name := node.get("name"), str):
            yield from ((kind, name) for kind in REGISTRIES if kind not in config)
    texts = [config.get("sparsity"), *((config.get("targets") or {}).get("patterns") or {}).values()]
    for text in texts:
        if text is not None and "pattern" in REGISTRIES:
            with suppress(ConfigError):
                yield "pattern", Sparsity.parse(text).kind


def _leave_out(values: dict[str, Any], schema: type[Options]) -> None:
    for key, field in schema.model_fields.items():
        if key not in values:
            continue
        if is_off(field, values[key]):
            del values[key]
        elif isinstance(values[key], dict):
            for own, inner in _within(key, bare(field.annotation), values[key]):
                _leave_out(own, inner)


def _within(key: str, kind: Any, value: dict[str, Any]) -> Iterator[tuple[dict[str, Any], type[Options]]]:
    """(options, their schema) in the value of a field: a group of options, a plug-in, or several plug-ins by name."""
    if isinstance(kind, type) and issubclass(kind, Options):
        yield value, kind
    elif key in REGISTRIES:
        plugins = {value["name"]: value} if "name" in value else value
        for name, own in plugins.items():
            yield own or {}, REGISTRIES[key][name].Options


def content(path: str, dependencies: Mapping[str, str], where: str) -> str:
    """Return the identity of a file: the cell that makes it, if the config names one, else its bytes.

    where: key of the config.

    A folder means the files directly in it, with their names; hidden ones are left out.
    """
    return (
        f"cell:{dependencies[path]}"
        if path in dependencies
        else once(("digest", path, where), lambda: _digest(path, where))
    )


def _digest(path: str, where: str) -> str:
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
        lines = "".join(f"{file.name}\0{_digest(str(file), where)}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        refuse(f"{where}={short(path)}", f"cannot be read ({error.strerror})", "correct the path")
