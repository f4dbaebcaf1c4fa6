"""How fast a run learns: when it first scores as well as it is asked to, and the area under the curve of its training loss."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.loop import many_ranks

if TYPE_CHECKING:
    from sparselab.training.loop.ema import EMA
    from sparselab.training.loop.loop import Loop


class Reach:
    """Observer: looks at the headline on validation data every ``every`` updates until it is as good as ``target``."""

    def __init__(
        self, loader: Any, target: float, every: int, total: int, higher: bool, precision: Any, ema: EMA | None
    ):
        self.loader, self.target, self.every, self.total, self.higher = loader, target, every, total, higher
        self.precision, self.ema = precision, ema
        self.at: int | None = None
        self.sum: torch.Tensor | None = None

    def after_update(self, loop: Loop, step: int) -> None:
        loss = torch.stack(loop.losses).double().mean()
        if many_ranks():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.sum = loss if self.sum is None else self.sum.to(loss.device) + loss
        if self.at is not None or (step % self.every and step != self.total):
            return
        with self.ema.applied() if self.ema else nullcontext():
            value = evaluate(loop.task, self.loader, "val", self.precision)[loop.task.headline]
        if value >= self.target if self.higher else value <= self.target:
            self.at = step

    def metrics(self) -> dict[str, float]:
        """Return ``train.reached`` and ``train.loss_mean``.

        The first is that update, or one more than the run has where it never came to it; the second the mean training loss of
        all updates, extra losses included.
        """
        found = {"train.reached": float(self.total + 1 if self.at is None else self.at)}
        return found if self.sum is None else {**found, "train.loss_mean": float(self.sum) / self.total}

    def state(self) -> dict[str, Any]:
        return {"at": self.at, "sum": self.sum}

    def load(self, state: dict[str, Any]) -> None:
        self.at, self.sum = state["at"], state["sum"]
