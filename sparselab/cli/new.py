"""``sparselab new KIND NAME``: a working skeleton of one's own method, data set … with its test, in a folder of one's own."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from sparselab.core.errors import Issues, did_you_mean, refuse, short

SKELETONS = Path(__file__).with_name("skeletons")
USAGE = """usage: sparselab new KIND NAME [to=FOLDER]

Writes a skeleton that works as it is, and a test that runs it, into FOLDER (here, where none is named). KIND is one of
{kinds}. Nothing that is there is overwritten."""


def kinds() -> list[str]:
    """The kinds of which there is a skeleton, sorted."""
    return sorted(folder.name for folder in SKELETONS.iterdir() if folder.is_dir())


def run(argv: list[str]) -> int:
    """Write the files and print their paths; returns 0. ConfigError for a kind, a name or a folder that cannot be used."""
    if not argv or any(word in ("-h", "--help", "help") for word in argv):
        print(USAGE.format(kinds=", ".join(kinds())))
        return 0
    if not 2 <= len(argv) <= 3:
        refuse(short(f"sparselab new {' '.join(argv)}"), "takes a kind and a name", "as in: sparselab new method mine")
    kind, name, folder = (
        argv[0],
        argv[1],
        Path(argv[2].removeprefix("to=") if len(argv) > 2 else "."),
    )
    issues = Issues()
    if kind not in kinds():
        issues.add(short(kind), "there is no skeleton of that kind", did_you_mean(kind, kinds()))
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) or keyword.iskeyword(name):
        issues.add(short(name), "is no name for it", "use a-z, 0-9 and _, beginning with a letter, like my_method")
    elif taken := _taken(kind, name):
        issues.add(short(name), f"is one of sparselab's own: {taken}", "choose another name")
    issues.raise_if_any()
    files = {folder / _named(str(path.relative_to(SKELETONS / kind)), name): path for path in _templates(kind)}
    for path in files:
        if path.exists():
            issues.add(short(str(path)), "is there already", "choose another name, or another folder")
    issues.raise_if_any()
    try:
        for path, template in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_named(template.read_text(encoding="utf-8"), name), encoding="utf-8")
            print(path)
    except OSError as error:
        refuse(short(str(folder)), f"cannot be written to ({error.strerror})", "name another folder")
    return 0


def _templates(kind: str) -> list[Path]:
    return sorted(path for path in (SKELETONS / kind).rglob("*.txt"))


def _named(text: str, name: str) -> str:
    """A template, or its path, with the name and the class's name filled in."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    return text.removesuffix(".txt").replace("NAME", name).replace("CLASS", camel)


def _taken(kind: str, name: str) -> str | None:
    """Return a description of the project's own member that has the name already; None if none has."""
    from sparselab.config.members import groups

    return f"{kind}={name}" if name in groups().get(kind, []) else None
