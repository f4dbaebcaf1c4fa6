"""The view of a run under way, for a person and for a CSV file."""

from __future__ import annotations

import csv
import io
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from sparselab.storage.atomic import write_text
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.loop import check_masks_agree, many_ranks
from sparselab.training.pace import ENOUGH

if TYPE_CHECKING:
    from sparselab.training.loop.ema import EMA
    from sparselab.training.loop.loop import Loop


LAST = 10
"""The last 1/LAST of the updates are those whose mean training loss is kept as ``train.loss``."""


class History:
    """Observer: mean training loss since the last row, validation metrics, learning rate and density, as CSV rows.

    The rows live in the checkpoint; the file is written whole, so a resumed run's file equals an unbroken one's.
    """

    def __init__(
        self, path: Path, loader: Any, evals: int, total: int, precision: Any, ema: EMA | None, sinks: list[Any]
    ):
        self.path = path
        self.loader = loader
        self.at = {round(total * (i + 1) / evals) for i in range(evals)} if evals else set()
        self.precision = precision
        self.ema = ema
        self.sinks = sinks
        self.rows: list[dict[str, float]] = []
        self.loss_sum: torch.Tensor | None = None
        self.losses = 0
        self.uncut: float | None = None  # validation loss just before a cut at the end
        self.total = total
        self.last = max(1, total // LAST)
        self.last_sum: torch.Tensor | None = None

    def before_cut(self, loop: Loop) -> None:
        if len(self.loader):
            self.uncut = evaluate(loop.task, self.loader, "val", self.precision)["loss"]

    def cut(self, loop: Loop) -> dict[str, float]:
        """``val.cut``: what the cut at the end cost in validation loss, where there was one; however often a run validates."""
        if self.uncut is None:
            return {}
        return {"val.cut": evaluate(loop.task, self.loader, "val", self.precision)["loss"] - self.uncut}

    def after_update(self, loop: Loop, step: int) -> None:
        loss = torch.stack(loop.losses).double().mean()  # micro-batches are equal in size
        if many_ranks():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum.to(loss.device) + loss
        self.losses += 1
        if step > self.total - self.last:
            self.last_sum = loss if self.last_sum is None else self.last_sum.to(loss.device) + loss
        if step not in self.at:
            return
        check_masks_agree(loop.sparsifier, step)  # of methods that make new masks at every update, a sample
        metrics: dict[str, float] = {}
        if len(self.loader):  # dataset.val=0 leaves nothing to validate on
            with self.ema.applied() if self.ema else nullcontext():
                metrics = evaluate(loop.task, self.loader, "val", self.precision)
        slots = loop.sparsifier.slots
        weights = sum(slot.mask.numel() for slot in slots)
        row = {
            "step": step,
            "lr": loop.trainer.optimizers[0].param_groups[0]["lr"],
            "train.loss": float(self.loss_sum) / self.losses,
            **{f"val.{name}": value for name, value in metrics.items()},
            "density": sum(slot.computing for slot in slots) / weights if weights else 1.0,
            **loop.sparsifier.stage(),
        }
        self.loss_sum, self.losses = None, 0
        self.rows.append(row)
        if loop.trainer.is_global_zero:
            self.write()
            for sink in self.sinks:
                sink.log(row)

    def last_loss(self) -> dict[str, float]:
        """``train.loss``: the mean training loss of the last tenth of the run, extra losses included."""
        return {} if self.last_sum is None else {"train.loss": float(self.last_sum) / self.last}

    def write(self) -> None:
        """The whole file, where there are rows."""
        if not self.rows:
            return
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, out.getvalue())

    def conclude(self, row: dict[str, float]) -> None:
        """Log the final metrics to the trackers; and the file again, should a crash have come between it and a checkpoint."""
        if self.sinks:
            self.write()
        for sink in self.sinks:
            sink.log(row)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()

    def state(self) -> dict[str, Any]:
        rows = [dict(row) for row in self.rows]
        return {
            "rows": rows,
            "loss_sum": self.loss_sum,
            "losses": self.losses,
            "last_sum": self.last_sum,
            "uncut": self.uncut,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.rows, self.loss_sum, self.losses = state["rows"], state["loss_sum"], state["losses"]
        self.last_sum = state.get("last_sum")  # older checkpoints have none
        self.uncut = state["uncut"]


class Progress:
    """Observer: a live bar with ETA on a terminal, a line now and then in a log file; and the pace of the updates."""

    def __init__(self, total: int, history: History, style: str):
        self.total = total
        self.history = history
        self.style = ("bar" if sys.stderr.isatty() else "lines") if style == "auto" else style
        self.started: float | None = None
        self.first = 0
        self.pace = (0, 0.0)  # updates of this process after its first one, and the seconds that they took
        self.shown = 0.0
        self.bar: Any = None

    def after_update(self, loop: Loop, step: int) -> None:
        now, begins = time.monotonic(), self.started is None
        if self.started is None:
            self.started, self.first = now, step  # the first update of a process also compiles and allocates
        self.pace = (step - self.first, now - self.started)
        if self.style == "none" or not loop.trainer.is_global_zero:
            return
        if begins and self.style == "bar":
            self._open()
        if self.bar is not None:
            self.bar.update(self.task_id, completed=step, note=self._note(loop) + self._left(step))
            if step == self.total:
                self.bar.stop()
        elif now - self.shown >= 15 or step == self.total:
            self.shown = now
            line = f"  update {step:,}/{self.total:,} · {self._note(loop)}{self._left(step)}"
            print(line, file=sys.stderr, flush=True)

    def _open(self) -> None:
        from rich import progress
        from rich.console import Console

        self.bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task_id = self.bar.add_task("train", total=self.total, note="")
        self.bar.start()

    def _left(self, step: int) -> str:
        done, seconds = self.pace
        return f" · {seconds / done * (self.total - step):,.0f} s left" if done >= ENOUGH else ""

    def _note(self, loop: Loop) -> str:
        parts = [f"loss {float(loop.task.last_loss):.3f}"]
        if self.history.rows:
            headline = loop.task.headline
            value = self.history.rows[-1].get(f"val.{headline}")
            parts += [] if value is None else [f"val {headline} {value:.4g}"]
        return " · ".join(parts)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass
