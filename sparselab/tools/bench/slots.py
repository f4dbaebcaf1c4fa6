"""Sparsifiers over weights made up for a measurement."""

from __future__ import annotations

import torch
from torch import nn

from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.weights.count import keep_count
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier


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
