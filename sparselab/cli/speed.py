"""``sparselab speed``: what a finished network's zeros are worth at inference, here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from sparselab.cli.keys import Key, parse, usage
from sparselab.core.errors import ConfigError, Issues, refuse

if TYPE_CHECKING:
    from sparselab.tools.deploy.form import Form
    from sparselab.tools.deploy.speed import Pair, Subject

KEYS = {
    "batch": Key("64", "images, or windows of text, in a forward pass"),
    "rounds": Key("15", "forward passes that count, of each"),
    "device": Key("auto", "where", ("auto", "cpu", "cuda")),
}
USAGE = "write: sparselab speed <run folder> [batch=64]"


@dataclass(frozen=True)
class Timed:
    """One form: milliseconds of its forward passes and of the dense ones, and dense over sparse (quartiles and median)."""

    form: str
    pair: Pair
    milliseconds: float
    dense_milliseconds: float
    speedup: tuple[float, float, float]
    difference: float


def run(argv: list[str]) -> int:
    """Print a table, a line per form. Returns 0; ConfigError for what cannot be timed at all."""
    if not {"-h", "--help"}.isdisjoint(argv):
        print(usage("speed", KEYS, outside=False).replace("speed", "speed <run folder>", 1))
        return 0
    folders = [word for word in argv if "=" not in word and not word.startswith("-")]
    if len(folders) != 1:
        refuse(f"speed {' '.join(argv)[:40]}".rstrip(), "one run folder is needed", USAGE)
    issues = Issues()
    asked = None
    with issues.collect():
        asked = parse("speed", KEYS, [word for word in argv if word != folders[0]], outside=False)
    if asked:
        for key, least in (("batch", 1), ("rounds", 3)):
            if not asked[key].isdecimal() or int(asked[key]) < least:
                issues.add(f"{key}={asked[key][:40]}", "is no such number", f"write a whole number from {least}")
    issues.raise_if_any()
    assert asked is not None
    from sparselab.tools.deploy import speed

    device = _device(asked["device"])
    subject = speed.subject(Path(folders[0]))
    found, refused = [], []
    for form in speed.forms(device):
        try:
            found.append(timed(subject, form, int(asked["batch"]), int(asked["rounds"]), device))
        except ConfigError as error:
            refused += error.issues
    if not found:
        raise ConfigError(refused)
    _print(found, [str(issue) for issue in refused], device, int(asked["batch"]))
    return 0


def timed(subject: Subject, form: Form, batch: int, rounds: int, device: str) -> Timed:
    """Both networks in turns, by the clock on the wall. ConfigError where not one sparse layer fits."""
    import torch

    from sparselab.tools.bench.timing import quartiles, turns, wall
    from sparselab.tools.deploy.speed import pair

    with torch.no_grad():
        both = pair(subject, form, batch, device)
        times = turns({"dense": both.dense, "sparse": both.sparse}, rounds, device, now=wall(device))
        ratios = [a / b for a, b in zip(times["dense"], times["sparse"], strict=True)]
        ours, theirs = (1000 * median(times[name]) for name in ("sparse", "dense"))
        return Timed(form.name, both, ours, theirs, quartiles(ratios), both.difference())


def _device(asked: str) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        refuse("device=cuda", "torch finds no CUDA device", "write device=cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _print(found: list[Timed], refused: list[str], device: str, batch: int) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
    table = Table(box=None, pad_edge=False)
    table.add_column("form", no_wrap=True)
    for title in ("layers", "ms", "dense ms", "speed-up (quartiles)", "outputs differ by"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        low, middle, high = one.speedup
        table.add_row(
            one.form, str(one.pair.layers), f"{one.milliseconds:.2f}", f"{one.dense_milliseconds:.2f}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{one.difference:.1e}",
        )  # fmt: skip
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"{name}, batches of {batch}", markup=False)
    console.print(table)
    for one in found:
        if one.pair.left:
            first = one.pair.left[0]
            more = f" and {len(one.pair.left) - 1} more" if len(one.pair.left) > 1 else ""
            console.print(f"{one.form} leaves {first.where}{more} dense: {first.problem}", markup=False)
    for line in refused:
        console.print(line, markup=False)
