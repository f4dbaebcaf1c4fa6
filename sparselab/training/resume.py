"""The second step of a run: its last checkpoint, where there is one, and what is different since."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.storage.atomic import sweep
from sparselab.storage.checkpoints import Checkpoint, Checkpoints
from sparselab.training.build import Built
from sparselab.training.loop.lightning import callback_state
from sparselab.training.loop.store_io import ELSEWHERE, StoreIO, bit_facts, check_content, resumed

if TYPE_CHECKING:
    from sparselab.running.engine import Plan
    from sparselab.training.loop.lightning import pl

OPTIMIZER_COPIES = 4  # weights, two moments, a master: what a checkpoint holds at most, in copies of the network


@dataclass
class Saved:
    """The checkpoints of a run, and the one that it goes on from.

    found: None where the run begins. io: Lightning's way to the store.
    """

    checkpoints: Checkpoints
    found: Checkpoint | None
    io: StoreIO = field(init=False)

    def __post_init__(self) -> None:
        self.io = StoreIO(self.checkpoints, self.found)

    @property
    def step(self) -> int | None:
        """The update after which the run goes on."""
        return self.found.step if self.found else None

    @property
    def path(self) -> str | None:
        return str(self.found.path) if self.found else None

    @property
    def elsewhere(self) -> str:
        """The facts that differed where a part of the run was computed; empty where none did."""
        return str(self.io.facts.get(ELSEWHERE, ""))

    def batches(self, loop: pl.Callback) -> int:
        """Micro-batches that were taken before the run goes on; 0 where it begins."""
        return int(callback_state(self.found.state, loop)["batches"]) if self.found else 0


def resume(plan: Plan, built: Built) -> Saved:
    """Look for the run's last checkpoint, and for room for the next ones.

    Raises ConfigError where the data are not those that the run began with, RunFailed where the disk is too full.
    """
    checkpoints = Checkpoints(Path(plan.folder) / "checkpoints", plan.id)
    checkpoints.need_space(OPTIMIZER_COPIES * built.copies)
    saved = Saved(checkpoints, checkpoints.load_latest())
    if saved.found is not None:
        check_content(saved.found, built.splits.content, plan.parts.dataset.where)
    return saved


def begin(saved: Saved, plan: Plan, built: Built, trainer: pl.Trainer) -> None:
    """Keep what decides bits for the next checkpoints; on rank 0 say what has changed, and sweep what crashes left."""
    devices = plan.parts.cell.trainer.devices
    facts = {**bit_facts(devices, trainer.strategy.root_device), "data": built.splits.content}
    saved.io.facts, line = resumed(saved.found, facts)
    if trainer.global_rank == 0:
        sweep(Path(plan.folder))
        saved.checkpoints.sweep()
        if line:
            print(line, file=sys.stderr)
