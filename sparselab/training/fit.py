"""The last step of a run: the updates, and the scores of what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sparselab.core.errors import RunFailed
from sparselab.training.assemble import Run
from sparselab.training.conclude import conclude

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Fitted:
    """metrics: by name. state: the network's tensors, on the CPU. pictures: PNG files by name.

    seconds: as :attr:`Finished.fit_seconds`.
    """

    metrics: dict[str, float]
    state: dict[str, Tensor]
    pictures: dict[str, bytes]
    seconds: float


def fit(run: Run) -> Fitted:
    """Update the network to the end of the run, and score it.

    Raises RunFailed (a number that is not finite, disk, disagreement) and Stopped (resumable).
    """
    trainer, task, device = run.trainer, run.task, run.trainer.strategy.root_device
    clock = time.process_time if device.type == "cpu" else time.monotonic  # other jobs on the same cores do not count
    began = clock()
    try:
        run.flag.check("before an update")
        trainer.fit(task, run.loader, ckpt_path=run.saved.path, weights_only=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = clock() - began
        task.to(device)
        metrics, state, pictures = conclude(run)
    except FloatingPointError as error:
        raise RunFailed(f"update {trainer.global_step + 1:,}: {error}; the last good checkpoint is kept") from None
    finally:
        run.progress.close()
        run.history.close()
    return Fitted(metrics, state, pictures, seconds)
