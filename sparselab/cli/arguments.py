"""The command line of `run.py` and `sparselab check`: overrides, and a few flags between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparselab.core.errors import Issues, did_you_mean, short

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
    for word in words:
        name, equals, value = word.partition("=")
        kind = FLAGS.get(name)
        if not word.startswith("-"):
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
    return out
