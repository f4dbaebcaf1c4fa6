"""From a plan to a finished run: build, resume, assemble, fit."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparselab.inputs.data.splits import loaded
from sparselab.running.signals import StopFlag
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.assemble import assemble
from sparselab.training.build import build
from sparselab.training.fit import fit
from sparselab.training.loop.loop import many_ranks
from sparselab.training.loop.module import TaskModule
from sparselab.training.resume import resume
from sparselab.weights.sparsifier import Sparsifier

if TYPE_CHECKING:
    from sparselab.running.engine import Plan


@dataclass
class Finished:
    """The results of a run, for its record."""

    task: TaskModule
    sparsifier: Sparsifier
    metrics: dict[str, float]
    seconds: float
    fit_seconds: float  # of the edit and the updates alone, in this process: of the processor, on a GPU of the wall
    pace: tuple[int, float]  # updates after the first one of this process, and the seconds of the wall that they took
    resumed_from: int | None
    folder: Path
    state: dict[str, torch.Tensor]
    data: dict[str, Any]  # what was really loaded, for the record
    elsewhere: str  # what was different where a part of it was computed; empty where nothing was
    pictures: dict[str, bytes] = field(default_factory=dict)  # PNG files by name, for the run's folder


def execute(plan: Plan, flag: StopFlag | None = None) -> Finished:
    """Train the cell of ``plan`` to its end, from its last checkpoint where there is one.

    flag: asks the run to stop, at any time. Where several processes run the cell, each of them calls this.
    Raises ConfigError (before training), RunFailed (NaN, disk, disagreement), Stopped (resumable).
    """
    began = time.monotonic()
    flag = StopFlag() if flag is None else flag  # a flag that is not set is false
    built = build(plan.parts, flag)
    saved = resume(plan, built)
    run = assemble(plan, built, saved, flag)
    fitted = fit(run)
    return Finished(
        task=run.task,
        sparsifier=run.loop.sparsifier,
        metrics=fitted.metrics,
        seconds=time.monotonic() - began,
        fit_seconds=fitted.seconds,
        pace=run.progress.pace,
        resumed_from=saved.step,
        folder=Path(plan.folder),
        state=fitted.state,
        data=loaded(plan.parts.data, built.splits),
        elsewhere=saved.elsewhere,
        pictures=fitted.pictures,
    )


def close(plan: Plan) -> None:
    """After the record is written: nothing of the run is needed any more."""
    if many_ranks():
        torch.distributed.barrier()
        rank = torch.distributed.get_rank()
        torch.distributed.destroy_process_group()
        if rank:
            return
    checkpoints = Checkpoints(Path(plan.folder) / "checkpoints", plan.id)
    checkpoints.clear()
    with suppress(OSError):  # not there, or somebody keeps something in it
        checkpoints.folder.rmdir()
