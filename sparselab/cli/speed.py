"""``sparselab speed``: what a finished network's zeros are worth at inference, here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from sparselab.cli.keys import Key, of_run
from sparselab.core.errors import ConfigError, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparselab.tools.deploy.speed import Pair

KEYS = {
    "batch": Key("64", "images, or windows of text, in a forward pass", least=1),
    "rounds": Key("15", "forward passes that count, of each", least=3),
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
    said = of_run("speed", KEYS, argv, USAGE)
    if said is None:
        return 0
    folder, asked = said
    from sparselab.tools.deploy import speed

    device = device_of(asked["device"])
    subject = speed.subject(folder)
    found, refused = [], []
    batch, rounds = int(asked["batch"]), int(asked["rounds"])
    ways = {form.name: partial(speed.pair, subject, form, batch, device) for form in speed.forms(device)}
    for name, pair in {**ways, speed.SHRUNK: partial(speed.shrunk_pair, subject, batch, device)}.items():
        try:
            found.append(timed(name, pair, rounds, device))
        except ConfigError as error:
            refused += error.issues
    if not found:
        raise ConfigError(refused)
    _print(found, [str(issue) for issue in refused], device, int(asked["batch"]))
    return 0


def timed(form: str, pair: Callable[[], Pair], rounds: int, device: str) -> Timed:
    """Time both networks alternately, in seconds of wall time. ConfigError where the form fits none of the sparse layers."""
    import torch

    from sparselab.tools.bench.timing import quartiles, turns, wall

    with torch.no_grad():
        both = pair()
        times = turns({"dense": both.dense, "sparse": both.sparse}, rounds, device, now=wall(device))
        ratios = [a / b for a, b in zip(times["dense"], times["sparse"], strict=True)]
        ours, theirs = (1000 * median(times[name]) for name in ("sparse", "dense"))
        return Timed(form, both, ours, theirs, quartiles(ratios), both.difference())


def device_of(asked: str) -> str:
    """Return the device that ``asked`` (auto, cpu or cuda) means here; a refusal where there is none."""
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
