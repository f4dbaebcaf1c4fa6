"""The command line of `run.py` and `sparselab check`: overrides, a few flags between them, and plug-ins.

What names something from outside, a folder of configs (``--config-dir``) or files of plug-ins (``plugins=[…]``), every command
that plans cells or shows tables takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparselab.core import plugins
from sparselab.core.errors import Issues, did_you_mean, refuse, short

SWEEP = ("-m", "--multirun")
FOLDER = ("-cd", "--config-dir")
HELP = ("-h", "--help")
FLAGS = {"-m": SWEEP, "--multirun": SWEEP, "-cd": FOLDER, "--config-dir": FOLDER, "-h": HELP, "--help": HELP}


@dataclass
class Arguments:
    """A parsed command line. ``config_dir``: a user's folder of config groups."""

    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None
    sweep: bool = False
    help: bool = False

    @property
    def debug(self) -> bool:
        return "debug=true" in self.overrides


@dataclass
class Outside:
    """The folder and files that a command line names from outside, and its other words. files: plug-ins, not yet announced."""

    rest: list[str] = field(default_factory=list)
    config_dir: str | None = None
    files: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, argv: Sequence[str], issues: Issues) -> Outside:
        """Take ``--config-dir FOLDER`` and ``plugins=[…]`` out of the words; ``issues`` gets what is wrong with them."""
        out, words = cls(), iter(argv)
        for word in words:
            name, equals, value = word.partition("=")
            if name == plugins.KEY and equals:
                with issues.collect():
                    if out.files:
                        refuse(short(word), "is there twice", f"name all files in one {plugins.KEY}=[…]")
                    out.files = plugins.named(value)
            elif name in FOLDER:
                folder = value if equals else next(words, "")
                if not folder:
                    issues.add(name, "has no value", f"write {name} FOLDER")
                elif out.config_dir is not None:
                    issues.add(short(f"{name} {folder}"), "is there twice", "put both into one folder")
                out.config_dir = folder or None
            else:
                out.rest.append(word)
        return out

    def announce(self) -> None:
        """Name the plug-ins to this process and to those that it starts."""
        if self.files:
            plugins.announce(self.files)


def parse(argv: list[str]) -> Arguments:
    """Raises ConfigError with every flag that is not understood."""
    issues, others = Issues(), Issues()
    outside = Outside.of(argv, others)
    out = Arguments(config_dir=outside.config_dir)
    for word in outside.rest:
        name, equals, _ = word.partition("=")
        kind = FLAGS.get(name)
        if not word.startswith("-"):
            out.overrides.append(word)
        elif kind is None or equals:
            bare = word.lstrip("-").replace("-", "_")
            fix = f"settings are written {short(bare, 40)}, without dashes" if equals else did_you_mean(name, FLAGS)
            issues.add(short(word), "no such flag", fix)
        else:
            out.sweep |= kind is SWEEP
            out.help |= kind is HELP
    if not out.help:
        issues.found += others.found
        issues.raise_if_any()
    outside.announce()
    return out
