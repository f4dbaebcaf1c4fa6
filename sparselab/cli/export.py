"""``sparselab export``: a finished network in a folder of its own, as it is or without the channels that its masks dropped."""

from __future__ import annotations

from sparselab.cli.keys import Key, of_run
from sparselab.cli.speed import device_of

KEYS = {
    "to": Key(None, "the folder that the network is written to, new or empty", folder="empty"),
    "shrink": Key("false", "take dropped channels out: smaller tensors, the same outputs", ("true", "false")),
    "batch": Key("64", "images, or windows of text, in a forward pass that is timed", least=1),
    "rounds": Key("15", "forward passes that count, of each network", least=3),
    "device": Key("auto", "where they are timed", ("auto", "cpu", "cuda")),
}
USAGE = "write: sparselab export <run folder> to=FOLDER [shrink=true]"


def run(argv: list[str]) -> int:
    """Write the folder and print what is in it. Returns 0; ConfigError for what cannot be exported, before anything is."""
    said = of_run("export", KEYS, argv, USAGE)
    if said is None:
        return 0
    folder, asked = said
    from sparselab.tools.deploy.export import export

    told = export(
        folder,
        asked.path("to"),
        asked["shrink"] == "true",
        int(asked["batch"]),
        int(asked["rounds"]),
        device_of(asked["device"]),
    )
    for label, text in told:
        print(f"{label:<15} {text}")
    print(asked.path("to"))
    return 0
