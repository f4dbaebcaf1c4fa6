"""Distillation of logits from a teacher checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.taught import Taught

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("distill")
class Distill(Taught):
    """T^2 KL(teacher || student) of softened logits (Hinton et al. 2015, arXiv 1503.02531, section 2).

    The loss is ``task_share * task + weight * T^2 * KL``, by default the mixture ``(1 - weight) * task + weight * ...``.
    KL is a mean over examples; of text, over the tokens whose target counts.
    """

    needs_classes = True
    version = 2  # targets that do not count were part of the mean

    class Options(Taught.Options):
        weight: float = Field(ge=0, le=1, description="share of the distillation loss, in [0, 1]")
        temperature: float = Field(gt=0, description="softening of the logits, above 0")
        task_share: float | None = Field(
            ge=0, description="factor of the task's own loss, at least 0; null: 1 - weight"
        )

    options: Options

    def share_of_task_loss(self) -> float:
        return 1 - self.options.weight if self.options.task_share is None else self.options.task_share

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return divergence(self.teacher.look(batch[0])[0], logits, self.options.temperature, context.counted(batch))


def divergence(taught: Tensor, logits: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(logits / T)), a scalar: summed over classes, averaged over examples.

    taught, logits: (..., classes). counted: bool, the shape without classes; what is False is left out of the mean.
    """
    from torch.nn import functional as F

    student = F.log_softmax(logits.float() / temperature, dim=-1).flatten(0, -2)
    teacher = F.log_softmax(taught.float() / temperature, dim=-1).flatten(0, -2)
    if counted is None:
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
    share = counted.flatten() / counted.sum()  # a product, not a selection: nothing waits for a count
    return temperature**2 * (each * share).sum()
