"""Losses that learn from a teacher: where it comes from, and one look at it per batch however many losses ask."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.training.losses.extra_loss import ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.feature_recorder import FeatureRecorder, States
    from sparselab.training.losses.context import StepContext

START = "start"  # the teacher that is the student's own starting network


class Taught(ExtraLoss):
    """Base of losses with a teacher of the student's own architecture.

    Its weights are those of ``teacher`` (a safetensors file, or the folder of a finished run), or, for ``start``, those that
    training starts from. It is frozen and in evaluation mode. Its forward pass, a third of a dense update, is the record's
    ``account.flops_teacher`` and not among the training FLOPs that tables compare.
    """

    class Options(ExtraLoss.Options):
        teacher: str = Field(
            description="a safetensors file, the folder of a finished run, {cell: {…}}, or start: the starting network"
        )

    options: Options

    def files(self) -> dict[str, str]:
        if self.options.teacher == START:
            return {}
        path = Path(self.options.teacher)
        return {"teacher": str(path / "model.safetensors" if path.is_dir() else path)}

    @property
    def needs_trained_start(self) -> bool:  # type: ignore[override]
        return self.options.teacher == START

    @property
    def taught_by(self) -> str:  # type: ignore[override]
        return self.files().get("teacher", START)

    def prepare(self, context: StepContext) -> None:
        key = self.taught_by
        if key not in context.teachers:
            network = context.family.build(context.data)
            if key != START:
                context.family.load(network, key)
            context.teachers[key] = Teacher(context.family, network.to(context.device))
        self.teacher = context.teachers[key]
        if self.needs_states:
            self.teacher.watch_states()
            context.watch_states()


@dataclass
class Teacher:
    """A frozen network; no module of the task's, so that nothing saves, trains or switches it."""

    family: Family
    network: nn.Module
    recorder: FeatureRecorder | None = None
    _seen: tuple[Tensor, Tensor, States | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    def watch_states(self) -> None:
        self.recorder = self.recorder or self.family.recorder(self.network)

    def look(self, inputs: Tensor) -> tuple[Tensor, States | None]:
        """(logits, hidden states) for ``inputs``; the states are None unless they are watched."""
        import torch

        if self._seen is None or self._seen[0] is not inputs:
            with torch.no_grad(), self.recorder or nullcontext():
                logits = self.family.logits(self.network, inputs)
            if (
                logits.device.type == "cpu" and not torch.isfinite(logits).all()
            ):  # on CUDA the loss tells: nothing waits
                raise FloatingPointError("the teacher's logits are not finite")
            self._seen = inputs, logits, self.recorder.take() if self.recorder else None
        return self._seen[1:]

    def forget(self) -> None:
        """At the end of a batch: let go of what was seen."""
        self._seen = None
