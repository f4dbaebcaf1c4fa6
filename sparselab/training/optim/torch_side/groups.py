"""Groups of weights: their norms, and what multiplies them. Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselab.weights.patterns.matrix import flattened, folded

if TYPE_CHECKING:
    from sparselab.core.model_spec import Layer
    from sparselab.training.optim.prox import Blocks


def apart(layer: Layer, tile: tuple[int, int], tensor: Tensor) -> Tensor:
    """Return the weight ``tensor`` (out, in, …) as (row of groups, row in the group, column of groups, column in the group)."""
    flat = flattened(layer.kind, tensor)
    (outputs, inputs), (rows, columns) = flat.shape, tile
    return flat.reshape(outputs // rows, rows, inputs // columns, columns)


def of_groups(blocks: Blocks, tensors: list[Tensor]) -> Tensor:
    """Return sums of ``tensors``, shaped as the weights, over each group.

    (groups,), float64: row by row of each weight's groups, one weight after another.
    """
    sums = [
        apart(layer, tile, tensor).sum((1, 3), dtype=torch.float64).flatten()
        for (layer, tile), tensor in zip(blocks.parts, tensors, strict=True)
    ]
    return torch.cat(sums)


def norms(blocks: Blocks) -> Tensor:
    """The groups' euclidean norms, (groups,), float64."""
    return of_groups(blocks, [weight.data.double().square() for weight in blocks.weights]).sqrt()


def group_sizes(blocks: Blocks, like: Tensor) -> Tensor:
    """Return how many weights each group has, (groups,), on the device of ``like``."""
    counts = [layer.numel // size for (layer, _), size in zip(blocks.parts, blocks.sizes, strict=True)]
    sizes = torch.tensor(blocks.sizes, dtype=like.dtype, device=like.device)
    return sizes.repeat_interleave(torch.tensor(counts, device=like.device))


def scale(blocks: Blocks, factor: Tensor) -> None:
    """Multiply each group by its factor, in place; bool keeps it or makes it zero."""
    start = 0
    for (layer, (rows, columns)), weight in zip(blocks.parts, blocks.weights, strict=True):
        view = apart(layer, (rows, columns), weight.data)
        count = view.shape[0] * view.shape[2]
        own = factor[start : start + count].to(weight.dtype).view(view.shape[0], 1, view.shape[2], 1).expand(view.shape)
        spread = own.reshape(view.shape[0] * rows, view.shape[2] * columns)
        weight.data.mul_(folded(layer.kind, spread, tuple(weight.shape)))
        start += count


def there_before(blocks: Blocks) -> Tensor:
    """Bool (groups,): those that were not zero before the optimiser's step."""
    return of_groups(blocks, [old.double().square() for old in blocks.before]) > 0


def in_half_space(blocks: Blocks, eps: float) -> Tensor:
    """Bool (groups,): those whose weights w, once b, have <w, b> >= eps |b|^2 (HSPG's projection)."""
    products = [weight.data.double() * old.double() for weight, old in zip(blocks.weights, blocks.before, strict=True)]
    squares = of_groups(blocks, [old.double().square() for old in blocks.before])
    return of_groups(blocks, products) >= eps * squares
