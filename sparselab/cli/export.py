"""``sparselab export``: a finished network in a folder of its own, as it is or without the channels that its masks dropped."""

from __future__ import annotations

from pathlib import Path

from sparselab.cli.keys import Key, parse, usage
from sparselab.cli.speed import device_of
from sparselab.core.errors import Issues, refuse

KEYS = {
    "to": Key(None, "the folder that the network is written to, new or empty", folder="new"),
    "shrink": Key("false", "take dropped channels out: smaller tensors, the same outputs", ("true", "false")),
    "batch": Key("64", "images, or windows of text, in a forward pass that is timed"),
    "rounds": Key("15", "forward passes that count, of each network"),
    "device": Key("auto", "where they are timed", ("auto", "cpu", "cuda")),
}
USAGE = "write: sparselab export <run folder> to=FOLDER [shrink=true]"


def run(argv: list[str]) -> int:
    """Write the folder and print what is in it. Returns 0; ConfigError for what cannot be exported, before anything is."""
    if not {"-h", "--help"}.isdisjoint(argv):
        print(usage("export", KEYS, outside=False).replace("export", "export <run folder>", 1))
        return 0
    folders = [word for word in argv if "=" not in word and not word.startswith("-")]
    if len(folders) != 1:
        refuse(f"export {' '.join(argv)[:40]}".rstrip(), "one run folder is needed", USAGE)
    asked = parse("export", KEYS, [word for word in argv if word != folders[0]], outside=False)
    assert asked is not None
    issues = Issues()
    for key, least in (("batch", 1), ("rounds", 3)):
        if not asked[key].isdecimal() or int(asked[key]) < least:
            issues.add(f"{key}={asked[key][:40]}", "is no such number", f"write a whole number from {least}")
    to = asked.path("to")
    if to.is_dir() and any(to.iterdir()):
        issues.add(f"to={str(to)[:40]}", "there are files in it", "name a new folder")
    issues.raise_if_any()
    from sparselab.tools.deploy.export import export

    told = export(
        Path(folders[0]),
        to,
        asked["shrink"] == "true",
        int(asked["batch"]),
        int(asked["rounds"]),
        device_of(asked["device"]),
    )
    for label, text in told:
        print(f"{label:<15} {text}")
    print(to)
    return 0
