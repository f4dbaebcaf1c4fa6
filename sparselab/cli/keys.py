"""``key=value`` arguments of the commands that read tables, and what these take from outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparselab.cli.arguments import Outside
from sparselab.config.members import CONFIGS
from sparselab.core.errors import Issue, Issues, did_you_mean, refuse, short


@dataclass(frozen=True)
class Key:
    """One argument. ``default`` None: it is required. ``choices``: the words allowed; none: any text.

    folder: what is typed has to be one that is there; ``"new"``: or one that can be made; ``"empty"``: and has nothing in it.
    least: what is typed has to be a whole number of at least so much.
    """

    default: str | None
    help: str
    choices: tuple[str, ...] = ()
    folder: Literal["", "there", "new", "empty"] = ""
    least: int | None = None


@dataclass(frozen=True)
class Asked:
    """The value of every key, and the user's folder of config groups, if one is named."""

    values: dict[str, str]
    config_dir: str | None = None

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def path(self, key: str) -> Path:
        """The value of a key that names a folder or a file."""
        return Path(self.values[key])


def parse(command: str, keys: Mapping[str, Key], argv: Sequence[str], outside: bool = True) -> Asked | None:
    """The value of every key; None where help was asked for (and printed). ConfigError with every fault at once.

    outside: the command takes ``--config-dir`` and ``plugins=[…]`` as well.
    """
    if any(word in ("-h", "--help", "help") for word in argv):
        print(usage(command, keys, outside))
        return None
    issues = Issues()
    values: dict[str, str] = {}
    given = Outside.of(argv, issues) if outside else Outside(list(argv))
    for word in given.rest:
        key, equals, value = word.partition("=")
        if key not in keys:
            issues.add(word[:60], f"sparselab {command} has no such key", did_you_mean(key, keys))
        elif not equals or not value:
            issues.add(word[:60], "has no value", f"write {key}={keys[key].choices[0] if keys[key].choices else '…'}")
        elif key in values:
            issues.add(word[:60], "is there twice", "give each key once")
        elif keys[key].choices and value not in keys[key].choices:
            issues.add(word[:60], f"no such {key}", did_you_mean(value, keys[key].choices))
        elif keys[key].folder:
            _check_folder(issues, short(word), Path(value), keys[key].folder)
        elif (least := keys[key].least) is not None and not (value.isdecimal() and int(value) >= least):
            issues.add(short(word), "is no such number", f"write a whole number from {least}")
        values[key] = value
    for key, spec in keys.items():
        if spec.default is None and key not in values:
            issues.add(key, "is required", f"write {key}=… ({spec.help})")
    issues.raise_if_any()
    given.announce()
    return Asked({key: values.get(key, spec.default or "") for key, spec in keys.items()}, given.config_dir)


def of_run(command: str, keys: Mapping[str, Key], argv: Sequence[str], fix: str) -> tuple[Path, Asked] | None:
    """Read the arguments of a command that is about one run folder.

    Args:
        command: its name
        keys: its keys
        argv: what was typed: the folder, and ``key=value``
        fix: what to write where there is no folder, or more than one

    Returns:
        The folder and the value of every key; None where help was asked for (and printed). Raises ConfigError.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        print(usage(command, keys, outside=False).replace(command, f"{command} <run folder>", 1))
        return None
    folders = [word for word in argv if "=" not in word and not word.startswith("-")]
    if len(folders) != 1:
        refuse(f"{command} {' '.join(argv)[:40]}".rstrip(), "one run folder is needed", fix)
    asked = parse(command, keys, [word for word in argv if word != folders[0]], outside=False)
    return None if asked is None else (Path(folders[0]), asked)


def need_records(asked: Asked, *places: str) -> None:
    """Say, on standard error, that none of the folders that were named, or are the usual ones, is here: all will be empty."""
    if any(Path(asked[key]).is_dir() for key in places):
        return
    where = " and ".join(f"{key}={asked[key]}" for key in places)
    kept = CONFIGS.parent / "results"
    fix = f"write results_dir={kept}" if kept.is_dir() and not asked.config_dir else "name the folder, or run it first"
    problem = f"{'neither is' if len(places) > 1 else 'is not'} here, so nothing is found"
    print(Issue(short(where, 60), problem, fix), file=sys.stderr)


def _check_folder(issues: Issues, where: str, folder: Path, kind: str) -> None:
    there = next((path for path in [folder, *folder.absolute().parents] if os.path.lexists(path)), folder)
    if not there.is_dir():
        issues.add(where, "is not a folder" if there == folder else f"{there} is not a folder", "name a folder")
    elif kind == "there" and there != folder:
        issues.add(where, "there is no such folder", "correct the path, or leave it out")
    elif kind == "empty" and there == folder and any(folder.iterdir()):
        issues.add(where, "there are files in it", "name a new folder")


def usage(command: str, keys: Mapping[str, Key], outside: bool = True) -> str:
    """The help text."""
    lines = [
        f"usage: sparselab {command} {'[--config-dir FOLDER] [plugins=[FILE]] ' if outside else ''}"
        + " ".join(f"{k}=…" if s.default is None else f"[{k}=…]" for k, s in keys.items())
    ]
    for key, spec in keys.items():
        choices = f" ({'|'.join(spec.choices)})" if spec.choices else ""
        default = f" [default: {spec.default}]" if spec.default else ""
        lines.append(f"  {key:12} {spec.help}{choices}{default}")
    return "\n".join(lines)
