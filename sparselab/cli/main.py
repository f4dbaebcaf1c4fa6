"""The console script. Each command is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys

import sparselab
from sparselab.core.errors import did_you_mean

RUN = "run"
COMMANDS = {
    RUN: ("sparselab.cli.application", "one cell, or with -m a sweep or a paper's whole table; as `python run.py`"),
    "check": ("sparselab.cli.check", "what a cell would do, its id and cost, and every problem it can foresee"),
    "new": ("sparselab.cli.new", "a skeleton of a method, a data set … of your own, with its test"),
    "runs": ("sparselab.cli.runs", "the runs of a folder: which are finished, under way, stopped or failed"),
    "compare": ("sparselab.cli.compare", "runs side by side: mean and spread over seeds, paired tests, what differs"),
    "inspect": ("sparselab.cli.inspect", "per-layer patterns and densities of a finished network"),
    "speed": ("sparselab.cli.speed", "what a finished network's zeros are worth at inference, here"),
    "export": (
        "sparselab.cli.export",
        "a finished network in a folder of its own, smaller where channels were dropped",
    ),
    "table": ("sparselab.cli.table", "a paper's table from its records"),
    "list": ("sparselab.cli.list", "the ledger of all papers"),
    "migrate": ("sparselab.cli.migrate", "records of an older sparselab, brought to today's names and ids"),
    "report": ("sparselab.cli.report", "one HTML page of everything"),
}
USAGE = "usage: sparselab COMMAND [arguments]\n\n" + "\n".join(f"  {n:<9} {text}" for n, (_, text) in COMMANDS.items())


def main(argv: list[str] | None = None) -> int:
    """Dispatch to a command; exit code 0, 1 or 2 as `run.py` has them."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        print(f"sparselab {sparselab.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"{name}: no such command — {did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(COMMANDS[name][0])
    if name == RUN:
        return command.main(rest)  # guards itself
    from sparselab.running.run_cell import guarded

    return guarded(lambda: command.run(rest), debug="debug=true" in rest)


if __name__ == "__main__":
    sys.exit(main())
