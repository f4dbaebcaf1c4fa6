"""SquareHead: distillation of hidden states, layer by layer, each in units of the teacher's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.losses.taught import Taught

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext


@LOSSES.register("squarehead")
class SquareHead(Taught):
    """sum_l MSE(s_l, t_l) / (mean(t_l^2) + eps) over the outputs of the blocks (Kurtic et al.

    2023, arXiv 2310.06927, the feature loss of section 3, with its code's eps).

    It is added to the task's loss. The embedding's output takes no part. Means run over tokens and features of a
    micro-batch together (of a process's share of it, where there are several), in float32.
    """

    needs_states = True

    class Options(Taught.Options):
        weight: float = Field(
            ge=0, description="factor of the extra loss, at least 0; the task's own loss keeps factor 1"
        )
        eps: float = Field(gt=0, description="added to the teacher's mean square, above 0 (bfloat16's epsilon)")
        reduce: Literal["sum", "mean"] = Field(description="sum or mean over layers")
        last: Literal["normed", "block"] = Field(
            description="last state: normed (after the final norm, as transformers' hidden_states) or block"
        )

    options: Options

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        o, learnt, taught = self.options, context.states, self.teacher.look(batch[0])[1]
        assert learnt is not None and taught is not None  # prepare has seen to that
        return squarehead(learnt.chosen(o.last), taught.chosen(o.last), o.eps, o.reduce, context.present(batch))


def squarehead(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    eps: float = 2.0**-7,
    reduce: str = "sum",
    present: Tensor | None = None,
) -> Tensor:
    """A scalar. students, teachers: per layer one tensor of any shape, the same for both.

    present: bool (n, t), False where a token is padding; states are then (n, t, features) and padding plays no part.
    """
    import torch

    terms = []
    for student, teacher in zip(students, teachers, strict=True):
        s, t = student.float(), teacher.float()
        if present is None:
            error, size = (s - t).square().mean(), t.square().mean()
        else:
            share = (present / (present.sum() * s.shape[-1])).unsqueeze(-1)
            error, size = ((s - t).square() * share).sum(), (t.square() * share).sum()
        terms.append(error / (size + eps))
    total = torch.stack(terms)
    return total.sum() if reduce == "sum" else total.mean()
