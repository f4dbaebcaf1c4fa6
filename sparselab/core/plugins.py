"""Code from outside that registers members: Python files that a person names, and installed packages.

A file is named on the command line (``plugins=[mine.py]``) or in the environment variable SPARSELAB_PLUGINS; a package names a
module under the entry point group ``sparselab.plugins``. A configuration, a table or a record cannot name any, so a stranger's
YAML runs no code. What a plug-in registers is found as the project's own members are; a cell that uses one has the plug-in's
content in its id.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import ConfigError, Issues, refuse, short

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KEY = "plugins"
VARIABLE = "SPARSELAB_PLUGINS"
GROUP = "sparselab.plugins"
MODULES = "sparselab_plugin"  # the first word of the names under which files are imported
CONFIGS = "configs"  # a package's folder of config groups


@dataclass
class Plugin:
    """Code from outside that was imported.

    name: the file's, or the module's. digest: SHA-256 of the file, or of all Python and YAML files of the package. configs: the
    package's folder of config groups, if it has one. members: (kind, name) of what it registered, with the class.
    """

    name: str
    digest: str
    configs: Path | None = None
    members: dict[tuple[str, str], type] = field(default_factory=dict)


class _State:
    """The plug-ins of this process: they are imported once, at the first look into a registry."""

    def __init__(self) -> None:
        self.loaded: list[Plugin] = []
        self.done = False
        self.current: Plugin | None = None


_state = _State()


def named(text: str) -> list[Path]:
    """The files of a list as it is typed, ``[mine.py,other.py]`` or ``mine.py``. ConfigError for what is no Python file."""
    at, issues, out = short(f"{KEY}={text}"), Issues(), []
    for word in filter(
        None, (part.strip().strip("'\"") for part in text.strip().removeprefix("[").removesuffix("]").split(","))
    ):
        path = Path(word).expanduser().absolute()
        if path.suffix != ".py":
            issues.add(at, f"{short(word, 40)} is no Python file", "name files, as in plugins=[mine.py]")
        elif not path.is_file():
            issues.add(at, f"there is no file {short(word, 40)}", "correct the path")
        elif os.pathsep in str(path):
            issues.add(at, f"{short(word, 40)} has {os.pathsep} in its path", "move the file")
        elif path in out:
            issues.add(at, f"{short(word, 40)} is there twice", "name each file once")
        out.append(path)
    if not out and not issues.found:
        issues.add(at, "names no file", "name files, as in plugins=[mine.py]")
    issues.raise_if_any()
    return out


def announce(files: list[Path]) -> None:
    """Name files to this process and to all that it starts, in place of those that the environment names."""
    os.environ[VARIABLE] = os.pathsep.join(map(str, files))
    _state.done = False


def words() -> list[str]:
    """The argument that names this process's files once more; nothing where there are none."""
    files = [os.path.relpath(path) for path in _files()]
    return [f"{KEY}=[{','.join(files)}]"] if files else []


def loaded() -> list[Plugin]:
    """Every plug-in, imported at the first call. ConfigError, with a line for each that cannot be imported."""
    if not _state.done:
        _state.done = True  # a plug-in may itself look into a registry
        issues = Issues()
        for path in _files():
            with issues.collect():
                _load_file(path)
        for point in _points():
            with issues.collect():
                _load_package(point)
        if issues.found:
            _state.done = False
            issues.raise_if_any()
    return _state.loaded


def note(kind: str, name: str, member: type) -> None:
    """Note that the plug-in being imported registers ``member``. Outside of such an import nothing is noted."""
    if _state.current is not None:
        _state.current.members[kind, name] = member


def members(kind: str) -> dict[str, type]:
    """Classes of a kind that plug-ins registered, by name."""
    return {name: cls for plugin in loaded() for (own, name), cls in plugin.members.items() if own == kind}


def folders() -> list[Path]:
    """The config folders that packages bring."""
    return [plugin.configs for plugin in loaded() if plugin.configs is not None]


def _files() -> list[Path]:
    return [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]


def _points() -> list[EntryPoint]:
    """Plug-ins that installed packages bring. To read all entry points takes a tenth of a second: first see if one is ours."""
    mark = f"[{GROUP}]".encode()
    lists = (
        path for folder in filter(os.path.isdir, sys.path) for path in Path(folder).glob("*-info/entry_points.txt")
    )
    if not any(mark in path.read_bytes() for path in lists):
        return []
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _load_file(path: Path) -> None:
    at = f"{KEY}={path.name}"
    try:
        content = path.read_bytes()
    except OSError as error:
        refuse(at, f"cannot be read ({error.strerror})", f"correct the path, or unset {VARIABLE}")
    plugin = Plugin(path.name, hashlib.sha256(content).hexdigest())
    name = f"{MODULES}_{plugin.digest[:12]}_{path.stem}"
    if name in sys.modules:  # two names for one content
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        _run(plugin, at, lambda: spec.loader.exec_module(module), str(path))
    except BaseException:
        del sys.modules[name]
        raise


def _load_package(point: EntryPoint) -> None:
    if any(plugin.name == point.module for plugin in _state.loaded):
        return
    at = f"the package that brings {point.name}"
    spec = importlib.util.find_spec(point.module.partition(".")[0])
    if spec is None or spec.origin is None:
        refuse(at, f"has no module {point.module}", "install it again, or uninstall it")
    origin = Path(spec.origin)
    folder = origin.parent if spec.submodule_search_locations else None
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".yaml")) if folder else [origin]
    seen = hashlib.sha256()
    for path in files:
        seen.update(
            f"{path.relative_to(origin.parent).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    configs = folder / CONFIGS if folder and (folder / CONFIGS).is_dir() else None
    plugin = Plugin(point.module, seen.hexdigest(), configs)
    _run(plugin, at, lambda: importlib.import_module(point.module), str(origin.parent))


def _run(plugin: Plugin, at: str, action: Any, place: str) -> None:
    """Import a plug-in; what it raises is one line that says where."""
    outer, _state.current = _state.current, plugin
    try:
        action()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(place)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f"line {line}: " if line else ""
        refuse(at, f"{where}{type(error).__name__}: {error}", "correct the file")
    finally:
        _state.current = outer
    _state.loaded.append(plugin)


def using(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Digests of the plug-ins that registered any of these (kind, name), by the plug-in's name."""
    wanted = set(names)
    return {plugin.name: plugin.digest for plugin in loaded() if not wanted.isdisjoint(plugin.members)}
