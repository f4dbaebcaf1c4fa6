"""The command line of `run.py` and `sparselab check`: overrides, a few flags between them, and plug-ins."""

from __future__ import annotations

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


def parse(argv: list[str]) -> Arguments:
    """Raises ConfigError with every flag that is not understood."""
    out, issues = Arguments(), Issues()
    words = iter(argv)
    files: list[Path] = []
    for word in words:
        name, equals, value = word.partition("=")
        kind = FLAGS.get(name)
        if name == plugins.KEY and equals:
            with issues.catch():
                if files:
                    refuse(short(word), "is there twice", f"name all files in one {plugins.KEY}=[…]")
                files = plugins.named(value)
        elif not word.startswith("-"):
            out.overrides.append(word)
        elif kind is FOLDER:
            folder = value if equals else next(words, "")
            if not folder:
                issues.add(name, "has no value", f"write {name} FOLDER")
            elif out.config_dir is not None:
                issues.add(short(f"{name} {folder}"), "is there twice", "put both into one folder")
            out.config_dir = folder or None
        elif kind is None or equals:
            bare = word.lstrip("-").replace("-", "_")
            fix = f"settings are written {short(bare, 40)}, without dashes" if equals else did_you_mean(name, FLAGS)
            issues.add(short(word), "no such flag", fix)
        else:
            out.sweep |= kind is SWEEP
            out.help |= kind is HELP
    if not out.help:
        issues.raise_if_any()
    if files:
        plugins.announce(files)
    return out
