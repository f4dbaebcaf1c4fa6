"""The Lightning module: a network, a task's loss with the extra losses, and checks of the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from sparselab.training.frozen import with_frozen, without_frozen
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.lightning import pl, scaler_of, torchmetrics

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.feature_recorder import FeatureRecorder, States
    from sparselab.training.adapts.torch_side.adapter import Adapter
    from sparselab.training.losses.extra_loss import ExtraLoss
    from sparselab.training.losses.taught import Teacher
    from sparselab.training.optim.optim import Optim
    from sparselab.training.removals.torch_side.remover import Remover
    from sparselab.training.scenarios.torch_side.course import Course
    from sparselab.training.tasks.task import Batch, Task
    from sparselab.weights.sparsifier import Sparsifier


PREFIX = "network."
"""Prefix of the network's tensors among those of a :class:`TaskModule`."""


class TaskModule(pl.LightningModule):
    """The training of ``network`` on ``task``, and its scores there.

    network: the model itself; its parameter names are those of the plain timm or transformers model.
    bytes_per_token: bytes of text that one predicted token stands for, per split; set when the data are loaded.
    """

    def __init__(
        self,
        task: Task,
        network: torch.nn.Module,
        family: Family,
        data: DataSpec,
        optim: Optim,
        losses: Iterable[ExtraLoss],
        steps: int,
    ):
        super().__init__()
        self.task = task
        self.network = network
        self.family = family
        self.data = data
        self.optim = optim
        self.losses = list(losses)
        self.steps = steps
        self.beside: list[dict[str, Any]] = []  # what is trained besides the network: groups of parameters and names
        self.last_loss = torch.tensor(float("nan"))
        self.teachers: dict[str, Teacher] = {}  # by the file of their weights
        self.recorder: FeatureRecorder | None = None
        self.states: States | None = None  # of the batch under way, where an extra loss watches them
        self.bytes_per_token: dict[str, float] = {}
        self.sparsifier: Sparsifier | None = None  # the network's masks, for losses that look past them
        self.seen: tuple[Tensor, Tensor, States | None] | None = (
            None  # inputs, and what the dense network makes of them
        )
        self.began: Any = None  # the state that the batch under way began with, where one is carried
        self.adapter: Adapter | None = None  # what adapts a given network
        self.freezes = False  # whether what the adapter does not train stays as it is
        self.course: Course | None = None  # of a scenario
        self.remover: Remover | None = None  # of a removal
        self.carry: Carry | None = None  # between windows of a text, where the family carries a state
        self.cut: float | None = None  # what pruning removed before the first update, where the learning rate asks

    @property
    def headline(self) -> str:
        """Return the score that a table reads."""
        return self.task.headline

    # -- training ----------------------------------------------------------------------------------------------------

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits of the next inputs; a family that carries a state goes on from those before."""
        if self.carry is None:
            return self.family.logits(self.network, inputs)
        self.began = self.carry.take(inputs.device)
        logits, state = self.family.carried(self.network, inputs, self.began)
        self.carry.put(state)
        return logits

    def again(self, inputs: Tensor) -> Tensor:
        """Compute the logits of the batch under way once more; a state that is carried is as it was before the batch.

        Args:
            inputs: (n, *inputs) of the batch under way

        Returns:
            (n, *outputs).
        """
        if self.carry is None:
            return self.family.logits(self.network, inputs)
        return self.family.carried(self.network, inputs, self.began)[0]

    def begin(self, index: int) -> None:
        """Prepare for micro-batch number ``index`` of the run, from 0."""
        if self.adapter:
            self.adapter.before_batch(index)
        if self.carry:
            self.carry.begin(index)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen network stays in evaluation mode: no dropout, and running statistics do not change."""
        super().train(mode)
        if self.freezes:
            self.network.eval()
        return self

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Score a text from its beginning inside the context; the state carried by training is put aside until its end."""
        kept, self.carry = self.carry, self.carry and Carry()
        try:
            yield
        finally:
            self.carry = kept

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.carry:
            checkpoint["carried"] = self.carry.whole()
        if self.freezes:
            checkpoint["state_dict"] = without_frozen(checkpoint["state_dict"], self.network, PREFIX)
        if self.cut is not None:
            checkpoint["cut"] = self.cut

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.carry:
            self.carry.restore(checkpoint["carried"])
        if self.freezes:
            checkpoint["state_dict"] = with_frozen(checkpoint["state_dict"], self.network, PREFIX)
        self.cut = checkpoint.get("cut")

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the task's own mean loss of a batch.

        Args:
            logits: (n, *outputs)
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            () float.
        """
        if self.course:
            logits = self.course.shown(logits, self.global_step)
        return self.task.criterion(logits, batch, self)

    def watch_states(self) -> None:
        """From now on ``states`` holds the outputs of the family's blocks during a training step."""
        self.recorder = self.recorder or self.family.recorder(self.network)

    @property
    def masked(self) -> list[tuple[torch.nn.Parameter, Tensor]]:
        """The parameters that have masks, each with its dense values."""
        return [(slot.param, slot.dense) for slot in self.sparsifier.slots] if self.sparsifier else []

    @property
    def drawing(self) -> bool | None:
        """Sample masks in the forward passes inside the context, as the sparsifier's ``drawing`` does."""
        return self.sparsifier.drawing if self.sparsifier else None

    @contextmanager
    def aside(self, dense: bool) -> Iterator[None]:
        """Keep running statistics as they are through further passes inside the context; with ``dense``, without masks."""
        kept = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        cached = torch.is_autocast_cache_enabled()  # of casts of other values that these parameters had
        torch.set_autocast_cache_enabled(False)
        try:
            with self.sparsifier.without_masks() if dense and self.sparsifier else nullcontext():
                yield
        finally:
            torch.set_autocast_cache_enabled(cached)
            for buffer, value in kept:
                buffer.data.copy_(value)  # .data: the passes under way may have saved them

    def look_dense(self, inputs: Tensor) -> tuple[Tensor, States | None]:
        """Look at the batch under way with the dense weights; computed once.

        Args:
            inputs: (n, *inputs) of the batch under way

        Returns:
            (logits, hidden states), without gradient.
        """
        if self.seen is None or self.seen[0] is not inputs:
            with torch.no_grad(), self.aside(dense=True), self.recorder or nullcontext():
                logits = self.again(inputs)
            self.seen = inputs, logits, self.recorder.take() if self.recorder else None
        return self.seen[1:]

    def counted(self, batch: Batch) -> Tensor | None:
        """As the task's."""
        return self.task.counted(batch)

    def present(self, batch: Batch) -> Tensor | None:
        """As the task's."""
        return self.task.present(batch)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        batch = self.task.batch(batch)
        with self.recorder or nullcontext():
            logits = self.adapter.outputs(batch[0]) if self.adapter else self.logits(batch[0])
        self.states = self.recorder.take() if self.recorder else None
        if self.remover:
            self.remover.look(batch, logits)
        extras = [extra for extra in self.losses if extra.due(self)]
        loss = self.criterion(logits, batch)
        if extras:  # shares are of the task's loss alone: no extra loss is a share of another one
            loss = math.prod(extra.share_of_task_loss() for extra in extras) * loss
        for extra in extras:
            if extra.options.weight:
                loss = loss + extra.options.weight * extra.loss(self, batch, logits)
        self.states = self.seen = None
        for teacher in self.teachers.values():
            teacher.forget()
        self.last_loss = loss.detach()
        if loss.device.type == "cpu" and not torch.isfinite(loss):
            raise FloatingPointError(self._origin(loss, batch, logits))
        return loss

    def _origin(self, loss: Tensor, batch: Batch, logits: Tensor) -> str:
        """Name the first value that is not finite, from the data to the loss."""
        if not torch.isfinite(batch[0]).all():
            return "the inputs of the batch are not finite"
        for name, tensor in (*self.network.named_parameters(), *self.network.named_buffers()):
            if not torch.isfinite(tensor).all():
                return f"{name} is not finite"
        if not torch.isfinite(logits).all():
            return "the network's output is not finite"
        return f"the training loss is {float(loss)}"

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Clip by the total norm, and refuse one that is not finite before it reaches a weight.

        Under loss scaling an infinite norm is the scaler's business: it skips the step, until not even a scale below 1
        helps. On CUDA nothing is looked at, so that no update waits for the CPU: scores and metrics are.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradient_clip_val is not None:
            norm = torch.nn.utils.clip_grad_norm_(
                [p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val, foreach=True
            )
        else:
            norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if norm.device.type != "cpu" or torch.isfinite(norm):
            return
        scaler = scaler_of(self.trainer)
        if scaler is None or scaler.get_scale() < 1:
            raise FloatingPointError(f"the gradient is not finite, first in {self._first_bad_gradient()}")

    def _first_bad_gradient(self) -> str:
        beside = (pair for group in self.beside for pair in zip(group["names"], group["params"], strict=True))
        for name, parameter in (*self.network.named_parameters(), *beside):
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return name
        return "the total norm"

    def configure_optimizers(self) -> Any:
        optimizer = self.optim.build(self.network, self.beside)
        factors = [self._factor(group.get("schedule")) for group in optimizer.param_groups]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, schedule: str | None) -> Callable[[int], float]:
        def factor(step: int) -> float:
            done, total = self.course.within(step) if self.course else (step, self.steps)
            return self.optim.factor(done, total, schedule, self.cut)

        return factor

    def begin_rates(self) -> None:
        """Set the first update's learning rates again, now that ``cut`` is known."""
        scheduler: Any = self.lr_schedulers()
        groups = scheduler.optimizer.param_groups
        for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(0)

    # -- scoring -----------------------------------------------------------------------------------------------------

    def metrics(self) -> torchmetrics.MetricCollection:
        """Fresh metrics of the task, on the CPU."""
        found: Any = self.task.metrics(self.data)
        return torchmetrics.MetricCollection(found, compute_groups=False)

    def numbers(self, values: Mapping[str, float], split: str) -> dict[str, float]:
        """The task's scores of a split."""
        return self.task.numbers(values, split, self)

    def score(self, metrics: Any, batch: Batch) -> None:
        """Update the task's metrics with a batch, which may have no example for this rank."""
        if self.carry is None and not len(batch[0]):
            return  # not every network computes nothing; one that carries a state has a row for each stream
        batch = self.task.scored(batch)
        outputs = self.logits(batch[0])
        if len(outputs):
            self.task.score(metrics, outputs, batch, self)
