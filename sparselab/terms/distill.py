"""Distillation of logits from a teacher checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.spec.options import Options
from sparselab.terms.term import TERMS, Term

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.tasks.task import Task


@TERMS.register("distill")
class Distill(Term):
    """T^2 KL(teacher || student) of softened logits (Hinton et al. 2015, arXiv 1503.02531, section 2).

    The loss is ``(1 - weight) * task + weight * T^2 * KL``. The teacher is the student's own architecture with the
    weights of ``teacher`` (a safetensors file, or the folder of a finished run), frozen, in evaluation mode. Its forward
    pass (a third of a dense update) is not in the account's training FLOPs.
    """

    class Options(Options):
        weight: float = Field(0.5, ge=0, le=1, description="share of the distillation loss, in [0, 1]")
        temperature: float = Field(2.0, gt=0, description="softening of the logits, above 0")
        teacher: str = Field(description="a safetensors file or the folder of a finished run")

    def files(self) -> dict[str, str]:
        from pathlib import Path

        path = Path(self.options.teacher)
        return {"teacher": str(path / "model.safetensors" if path.is_dir() else path)}

    def prepare(self, task: Task) -> None:
        teacher = task.family.build(task.data)
        task.family.load(teacher, self.files()["teacher"])
        # A plain list hides the teacher from the task's parameters, checkpoints and mode changes.
        self._teacher = [teacher.to(task.device).eval().requires_grad_(False)]

    def share_of_task_loss(self) -> float:
        return 1 - self.options.weight

    def loss(self, task: Task, batch: tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
        import torch
        from torch.nn import functional as F

        with torch.no_grad():
            taught = task.family.logits(self._teacher[0], batch[0]).float()
        if taught.device.type == "cpu" and not torch.isfinite(taught).all():  # on CUDA the loss tells: nothing waits
            raise FloatingPointError("the teacher's logits are not finite")
        t = self.options.temperature
        student = F.log_softmax(logits.float() / t, dim=-1).flatten(0, -2)
        teacher = F.log_softmax(taught / t, dim=-1).flatten(0, -2)
        return t * t * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
