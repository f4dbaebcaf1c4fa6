"""The first steps of every engine's plan: the top level, the plug-ins, the folder [no torch]."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from sparselab.config.compose import defaults
from sparselab.config.schema import Common
from sparselab.core.errors import ConfigError, Issue, short
from sparselab.core.options import attempt

Top = TypeVar("Top", bound=Common)


def top_level(
    schema: type[Top], config: dict[str, Any], invalid: frozenset[str]
) -> tuple[Top, list[Issue], frozenset[str]]:
    """(the top level, its faults, the keys that are invalid with them).

    A faulty value is replaced by the default, so that the rest can be checked nevertheless. ConfigError where there is no
    default: the group has to be chosen.
    """
    made, found = attempt(schema, config)
    if made is not None:
        return made, [], invalid
    usable, usual = copy.deepcopy(config), defaults()
    for path, _ in found:
        usable.pop(path[0], None)
        if path[0] in usual:
            usable[path[0]] = usual[path[0]]
    issues = [issue for path, issue in found if path[0] not in invalid]  # of those, what is wrong has been said
    made, _ = attempt(schema, usable)
    if made is None:
        raise ConfigError(issues)
    return made, issues, invalid | {path[0] for path, _ in found}


def unwritable(runs_dir: str) -> list[Issue]:
    """Why ``runs_dir`` cannot be written; nothing where it can. Nothing is made."""
    runs = Path(runs_dir)
    where = f"runs_dir={short(runs_dir)}"
    try:
        runs.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a NUL
        reason = getattr(error, "strerror", None) or str(error)
        return [Issue(where, f"cannot be a folder ({reason})", "choose another folder with runs_dir=…")]
    if runs.is_symlink() and not runs.exists():
        return [Issue(where, "is a link to nothing", "name a folder that can be made")]
    there = next(path for path in [runs, *runs.absolute().parents] if path.exists())
    if not there.is_dir():
        return [Issue(where, f"{short(str(there))} is not a folder", "name a folder that can be made")]
    if not os.access(there, os.W_OK | os.X_OK):
        return [Issue(where, "cannot be written", "choose another folder with runs_dir=…")]
    return []


def pending(path: str, dependencies: Mapping[str, str]) -> bool:
    """True if a file is one that another cell has yet to make."""
    return path in dependencies and not Path(path).exists()


def without_pending(values: dict[str, Any], dependencies: Mapping[str, str]) -> dict[str, Any]:
    """A plug-in's options as far as they can be checked: without a file that another cell has yet to make."""
    missing = {key: None for key, value in values.items() if isinstance(value, str) and pending(value, dependencies)}
    return {**values, **missing} if missing else values
