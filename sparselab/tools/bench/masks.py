"""Masks of all layers and their products with the weights, against a plain copy of the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from sparselab.core.sparsity import Sparsity
from sparselab.tools.bench.timing import Row, row, turns
from sparselab.weights.patterns.pattern import Pattern

SECTION = "New masks and effective weights of a ViT-S (21.2 M weights), against a copy into place"
SHAPES = [(1152, 384), (384, 384), (1536, 384), (384, 1536)] * 12
FILTERS = [(64, 64, 3, 3), (128, 128, 3, 3), (256, 256, 3, 3), (512, 512, 3, 3)] * 5
GOALS = {"2:4": 2.0, "1:8": 2.0, "4:16": 2.0, "8:32": 4.0, "16:64": 4.0, "0.9": None, "2:4 of filters": 2.0}
HUNDRED_MILLION = 100_000_000


def rows(device: str) -> Iterator[Row]:
    """One update's worth: magnitudes ranked, mask made, weights times mask written."""
    from sparselab.tools.bench.slots import sparsifier

    for name, goal in GOALS.items():
        text, _, filters = name.partition(" of ")
        shapes = FILTERS if filters else SHAPES
        weights = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
        made = sparsifier(weights, text)
        copies = [torch.empty_like(weight) for weight in weights]
        things = {"copy": partial(copy, weights, copies), name: partial(made.after_step, 1, None)}
        yield row(SECTION, name, "copy", turns(things, 9, device), goal)
    yield selection(device)


def selection(device: str) -> Row:
    """The largest of many, exactly: how long, and how much memory beside the scores."""
    scores = torch.randn(10_000, HUNDRED_MILLION // 10_000, device=device)
    other, pattern = torch.empty_like(scores), Pattern.of(Sparsity.parse(0.9))
    name = "top 10 % of 100 M, unstructured"
    masked = {"copy": lambda: other.copy_(scores), name: lambda: pattern.mask(scores)}
    return row(SECTION, name, "copy", turns(masked, 5, device, warm_up=1))


@torch.no_grad()
def copy(sources: list[nn.Parameter], targets: list[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
