"""Sparsifiers over weights made up for a measurement."""

from __future__ import annotations

import torch
from torch import nn

from sparselab.methods.method import METHODS
from sparselab.sparsity.count import keep_count
from sparselab.sparsity.pattern import Pattern
from sparselab.sparsity.schedule import SCHEDULES
from sparselab.sparsity.slots import Slot, Sparsifier
from sparselab.spec.outline import Layer
from sparselab.spec.sparsity import Sparsity


def sparsifier(weights: list[nn.Parameter], sparsity: str, method: str = "ste") -> Sparsifier:
    """Started, with a mask due at every update."""
    asked = Sparsity.parse(sparsity)
    slots = []
    for i, weight in enumerate(weights):
        kind = "conv" if weight.ndim == 4 else "linear"
        layer = Layer(f"layer{i}", kind, tuple(weight.shape), weight.numel())
        slots.append(Slot(layer, weight, Pattern.of(asked, kind), torch.ones_like(weight, dtype=torch.bool)))
    kept = {slot.layer.name: keep_count(slot.mask.numel(), asked.density) for slot in slots}
    rule, constant = METHODS[method], SCHEDULES["constant"]
    made = Sparsifier(
        rule(rule.Options()), slots, constant(constant.Options()), lambda level, scores: kept, total=100, seed=0
    )
    made.start()
    return made
