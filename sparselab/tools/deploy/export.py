"""A finished network in a folder of its own: its tensors, a program for plain torch, and what it costs, counted and timed."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sparselab.inputs.models.trace import trace
from sparselab.storage import atomic, tensors
from sparselab.storage.export import MODEL
from sparselab.tools.bench.timing import quartiles, turns, wall
from sparselab.tools.deploy import speed
from sparselab.tools.deploy.shrink import Shrunk, shrink

PROGRAM = "model.pt2"
ABOUT = "export.json"


def export(folder: Path, to: Path, smaller: bool, batch: int, rounds: int, device: str) -> list[tuple[str, str]]:
    """Write the network of a run folder to ``to``; (label, text) of what was written.

    ``model.safetensors`` has its tensors under its own names, ``model.pt2`` the network for ``torch.export.load(…).module()``
    (images of a batch of any size), ``export.json`` the counts: parameters, multiply-accumulates of one sample, milliseconds of
    a forward pass beside those of the run's own network, and how many channels each module lost. ``smaller``: without the
    channels that masks made superfluous (:mod:`~sparselab.tools.deploy.shrink`).

    Raises ConfigError for a folder that has no sparse network, and where no channel is superfluous.
    """
    subject = speed.subject(folder)
    inputs = speed.sample(subject.data, batch, "cpu", torch.float32)
    forward = subject.family.logits
    made = shrink(subject.network, forward, inputs[:8]) if smaller else Shrunk(subject.network)
    own, after = (
        trace(network, subject.data, call=partial(forward, network)) for network in (subject.network, made.network)
    )
    times = _timed(subject, made, inputs, rounds, device)
    about: dict[str, Any] = {
        "cell": folder.resolve().name,
        "shrunk": smaller,
        "parameters": {"run": own.params, "export": after.params},
        "macs": {"run": own.macs, "export": after.macs},
        "milliseconds": {name: 1000 * median(times[name]) for name in times},
        "speed_up": quartiles([a / b for a, b in zip(times["run"], times["export"], strict=True)]),
        "timed": {"device": device, "batch": batch, "threads": torch.get_num_threads(), "rounds": rounds},
        "outputs_differ_by": made.difference,
        "lost": {name: {"outputs": outs, "inputs": ins} for name, (outs, ins) in sorted(made.lost.items())},
    }
    program = _program(made, forward, inputs)
    to.mkdir(parents=True, exist_ok=True)
    tensors.save(to / MODEL, made.network.state_dict(), {})
    if program is not None:
        atomic.write_bytes(to / PROGRAM, program)
    atomic.write_bytes(os.fspath(to / ABOUT), atomic.render(about))
    low, middle, high = about["speed_up"]
    ms = about["milliseconds"]
    spread = f"{middle:.2f}x, quartiles {low:.2f} to {high:.2f}; batches of {batch}, {device}"
    return [
        ("parameters", f"{own.params:,} → {after.params:,}"),
        ("MACs", f"{own.macs:,} → {after.macs:,} per sample, both dense"),
        ("milliseconds", f"{ms['run']:.3f} → {ms['export']:.3f} ({spread})"),
        ("outputs", f"differ by {made.difference:.1e} of the largest"),
        ("files", f"{MODEL}, {PROGRAM}, {ABOUT}" if program is not None else f"{MODEL}, {ABOUT}"),
    ]  # fmt: skip


def _timed(
    subject: speed.Subject, made: Shrunk, inputs: torch.Tensor, rounds: int, device: str
) -> dict[str, list[float]]:
    networks = {"run": subject.network.to(device), "export": made.network.to(device)}
    forward, batch = subject.family.logits, inputs.to(device)
    calls = {name: partial(forward, network, batch) for name, network in networks.items()}
    with torch.no_grad():
        times = turns(calls, rounds, device, now=wall(device))
    for network in networks.values():
        network.to("cpu")
    return times


def _program(made: Shrunk, forward: Any, inputs: torch.Tensor) -> bytes | None:
    """The network as a file of ``torch.export``, for any number of examples; None where it reads tokens."""
    if not inputs.is_floating_point():
        return None
    sizes = {0: torch.export.Dim("batch", min=1)}
    out = io.BytesIO()
    with torch.no_grad():
        torch.export.save(torch.export.export(made.network, (inputs[:2],), dynamic_shapes=(sizes,)), out)
    return out.getvalue()
