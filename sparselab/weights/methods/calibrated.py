"""One-shot pruning that looks at what layers read: Wanda and SparseGPT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import RunFailed
from sparselab.core.options import Options as AnyOptions
from sparselab.weights.capabilities import ReadsInputs
from sparselab.weights.matrix import as_matrix, by_group, by_input_norms, stored
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class Calibrated(ReadsInputs, Method):
    """Prunes before training, block after block, and leaves the mask as it is.

    ``trainer.max_steps=0`` is the paper's one-shot result; with updates the pruned network is fine-tuned.
    """

    patterns = patterns_where(lambda pattern: pattern.free or pattern.grouped)
    schedules = ("constant",)

    class Options(AnyOptions):
        samples: int = Field(ge=1, description="training examples that are looked at, at least 1")


@METHODS.register("wanda")
class Wanda(Calibrated):
    """|W_ij| times the norm of input j (Sun et al. 2023, arXiv 2306.11695, eq. 1), compared within each output."""

    class Options(Calibrated.Options):
        per: Literal["output", "layer"] = Field(description="output or layer: where scores are compared")

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return by_input_norms(slot, context.inputs(slot))

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        from sparselab.weights.select import largest_in_groups

        mask = super().remask(slot, kept, context)
        if slot.pattern.sparsity.free and self.options.per == "output":
            scores = as_matrix(slot, self.score(slot, context)).unsqueeze(2)
            each, more = divmod(kept, len(scores))  # the first outputs keep one more, so that the total is exact
            rows = largest_in_groups(scores, each)
            rows[:more] = largest_in_groups(scores[:more], each + 1)
            mask = stored(slot, rows.squeeze(2))
        slot.dense.mul_(mask)  # the blocks to come read what this one puts out
        return mask


@METHODS.register("sparsegpt")
class SparseGPT(Calibrated):
    """Optimal brain surgeon, column by column (Frantar & Alistarh 2023, arXiv 2301.00774, algorithm 1).

    What is kept makes up for what is pruned. The number kept is exact in each layer; a block of columns gets its share,
    and so do the groups of a convolution and the experts of a mixture, each of which is solved with its own inputs.
    """

    axes = ("in", "kernel")

    class Options(Calibrated.Options):
        block: int = Field(ge=1, description="columns whose mask is chosen together, at least 1")
        damp: float = Field(gt=0, description="added to the diagonal, in units of its mean, above 0")

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        """The error of losing one weight alone: w^2 / [H^-1]_jj."""
        import torch

        weights = by_group(slot, as_matrix(slot, slot.dense)).float()
        grams = context.inputs(slot).reshape(len(weights), *[weights.shape[-1]] * 2)
        parts = [
            weight.square() / inverse_factor(gram, self.options.damp).square().sum(0)
            for weight, gram in zip(weights, grams, strict=True)
        ]
        return stored(slot, torch.cat(parts))

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        import torch

        order = order_of_groups(slot)
        weights = by_group(slot, as_matrix(slot, slot.dense)[:, order]).float()
        grams = context.inputs(slot).reshape(len(weights), *[len(order)] * 2)
        n, m = slot.pattern.sparsity.n_of_m or (None, None)
        parts = []
        for i, (weight, gram) in enumerate(zip(weights, grams, strict=True)):
            due = _share(kept, i + 1, len(weights)) - _share(kept, i, len(weights))
            gram = gram[order][:, order]
            parts.append(solve(weight, gram, due, n, m, self.options.block, self.options.damp))
        back = order.argsort()
        found, mask = (torch.cat(own)[:, back] for own in zip(*parts, strict=True))
        slot.dense.copy_(stored(slot, found))
        return stored(slot, mask)


def solve(
    weight: Tensor, gram: Tensor, kept: int, n: int | None, m: int | None, block: int, damp: float
) -> tuple[Tensor, Tensor]:
    """SparseGPT on one layer: (the new weight, the mask), both (outputs, inputs), float32 and bool.

    gram: mean of x x^T. kept: weights that stay, where ``n`` and ``m`` name no N:M pattern over consecutive inputs.
    """
    import torch

    from sparselab.weights.select import largest, largest_in_groups

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
            if m and n and i % m == 0:
                group = slice(i, i + m)
                keep[:, group] = largest_in_groups((span[:, group] / scale[group]).square().unsqueeze(2), n).squeeze(2)
            pruned = span[:, i] * keep[:, i]
            errors[:, i] = (span[:, i] - pruned) / scale[i]
            span[:, i + 1 :] -= torch.outer(errors[:, i], inner[i, i + 1 :])
            span[:, i] = pruned
        weight[:, last:] -= errors @ factor[first:last, last:]
    return weight, mask


def inverse_factor(gram: Tensor, damp: float) -> Tensor:
    """The upper triangular U with U^T U = H^-1, H the damped second moments; inputs that are never there count 1.

    Args:
        gram: (inputs, inputs) float32, the mean of x x^T
        damp: share of the mean of its diagonal that is added to it

    Returns:
        (inputs, inputs) float32, upper triangular.
    """
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
    if not slot.pattern.sparsity.grouped or slot.pattern.axis == "kernel" or slot.layer.kind != "conv":
        return columns
    return columns.view(slot.mask.shape[1], -1).t().flatten()  # input channels of one kernel position follow each other
