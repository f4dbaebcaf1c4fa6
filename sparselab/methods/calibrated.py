"""One-shot pruning that looks at what layers read: Wanda and SparseGPT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.methods.method import METHODS, Method
from sparselab.sparsity.matrix import as_matrix, stored
from sparselab.spec.faults import RunFailed
from sparselab.spec.options import Options

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.sparsity.slots import Moment, Slot


class Calibrated(Method):
    """Prunes before training, block after block, and leaves the mask as it is.

    ``trainer.max_steps=0`` is the paper's one-shot result; with updates the pruned network is fine-tuned.
    """

    patterns = ("unstructured", "nm")
    schedules = ("constant",)
    reads_inputs = True

    class Options(Options):
        samples: int = Field(128, ge=1, description="training examples that are looked at, at least 1")


@METHODS.register("wanda")
class Wanda(Calibrated):
    """|W_ij| times the norm of input j (Sun et al. 2023, arXiv 2306.11695, eq. 1), compared within each output."""

    class Options(Calibrated.Options):
        per: Literal["output", "layer"] = Field("output", description="output or layer: where scores are compared")

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        norms = moment.inputs(slot).diagonal().sqrt()
        return stored(slot, as_matrix(slot, slot.dense).float().abs() * norms)

    def remask(self, slot: Slot, kept: int, moment: Moment) -> Tensor:
        from sparselab.sparsity.select import largest_in_groups

        mask = super().remask(slot, kept, moment)
        if slot.pattern.sparsity.kind == "unstructured" and self.options.per == "output":
            scores = as_matrix(slot, self.score(slot, moment)).unsqueeze(2)
            each, more = divmod(kept, len(scores))  # the first outputs keep one more, so that the total is exact
            rows = largest_in_groups(scores, each)
            rows[:more] = largest_in_groups(scores[:more], each + 1)
            mask = stored(slot, rows.squeeze(2))
        slot.dense.mul_(mask)  # the blocks to come read what this one puts out
        return mask


@METHODS.register("sparsegpt")
class SparseGPT(Calibrated):
    """Optimal brain surgeon, column by column (Frantar & Alistarh 2023, arXiv 2301.00774, algorithm 1).

    What is kept makes up for what is pruned. The number kept is exact in each layer; a block of columns gets its share.
    """

    axes = ("in", "kernel")

    class Options(Calibrated.Options):
        block: int = Field(128, ge=1, description="columns whose mask is chosen together, at least 1")
        damp: float = Field(0.01, gt=0, description="added to the diagonal, in units of its mean, above 0")

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        """The error of losing one weight alone: w^2 / [H^-1]_jj."""
        weight = as_matrix(slot, slot.dense).float()
        factor = inverse_factor(moment.inputs(slot), self.options.damp)
        return stored(slot, weight.square() / factor.square().sum(0))

    def remask(self, slot: Slot, kept: int, moment: Moment) -> Tensor:
        order = order_of_groups(slot)
        weight, gram = as_matrix(slot, slot.dense)[:, order], moment.inputs(slot)[order][:, order]
        asked = slot.pattern.sparsity
        found, mask = solve(weight.float(), gram, kept, asked.n, asked.m, self.options.block, self.options.damp)
        back = order.argsort()
        slot.dense.copy_(stored(slot, found[:, back]))
        return stored(slot, mask[:, back])


def solve(
    weight: Tensor, gram: Tensor, kept: int, n: int | None, m: int | None, block: int, damp: float
) -> tuple[Tensor, Tensor]:
    """SparseGPT on one layer: (the new weight, the mask), both (outputs, inputs), float32 and bool.

    gram: mean of x x^T. kept: weights that stay, where ``n`` and ``m`` name no N:M pattern over consecutive inputs.
    """
    import torch

    from sparselab.sparsity.select import largest, largest_in_groups

    weight = weight.clone()
    weight[:, gram.diagonal() == 0] = 0  # an input that is never there
    factor = inverse_factor(gram, damp)
    columns = weight.shape[1]
    block = max(block - block % m, m) if m else block
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        span, keep, inner = weight[:, first:last], mask[:, first:last], factor[first:last, first:last]
        scale = inner.diagonal()
        if not m:
            due = _share(kept, last, columns) - _share(kept, first, columns)
            keep.copy_(largest((span / scale).square().flatten(), due).view_as(span))
        errors = torch.zeros_like(span)
        for i in range(last - first):
            if m and i % m == 0:
                group = slice(i, i + m)
                keep[:, group] = largest_in_groups((span[:, group] / scale[group]).square().unsqueeze(2), n).squeeze(2)
            pruned = span[:, i] * keep[:, i]
            errors[:, i] = (span[:, i] - pruned) / scale[i]
            span[:, i + 1 :] -= torch.outer(errors[:, i], inner[i, i + 1 :])
            span[:, i] = pruned
        weight[:, last:] -= errors @ factor[first:last, last:]
    return weight, mask


def inverse_factor(gram: Tensor, damp: float) -> Tensor:
    """The upper triangular U with U^T U = H^-1, H the damped second moments; inputs that are never there count 1."""
    import torch

    h = gram.clone()
    diagonal = h.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damp * diagonal.mean()
    try:
        return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    except torch.linalg.LinAlgError:  # inputs that depend on each other, and too little added for float32
        raise RunFailed(f"what a layer reads has no inverse at method.damp={damp:g} — write a larger one") from None


def _share(kept: int, columns: int, total: int) -> int:
    """Weights that the first ``columns`` of ``total`` columns keep, to the nearest."""
    return (2 * kept * columns + total) // (2 * total)


def order_of_groups(slot: Slot) -> Tensor:
    """The matrix's columns in an order in which the groups of N:M are consecutive."""
    import torch

    columns = torch.arange(as_matrix(slot, slot.mask).shape[1], device=slot.mask.device)
    if slot.pattern.sparsity.kind != "nm" or slot.pattern.axis == "kernel" or slot.mask.ndim < 3:
        return columns
    return columns.view(slot.mask.shape[1], -1).t().flatten()  # input channels of one kernel position follow each other
