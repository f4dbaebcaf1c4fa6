"""Sparsifiers over weights written by hand, without a model, a trainer or a config."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.weights.capabilities import FollowsSchedule
from sparselab.weights.count import keep_count
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.probe import Probe
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier


def hand_slots(
    method: str,
    weights: torch.Tensor | list[torch.Tensor],
    sparsity: Any = 0.5,
    schedule: str = "constant",
    total: int = 12,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    **moments: Any,
) -> Sparsifier:
    """A sparsifier whose slots hold ``weights`` (one tensor, or a list), not yet started.

    moments: options of the schedule.
    """
    tensors = weights if isinstance(weights, list) else [weights]
    asked = Sparsity.parse(sparsity)
    slots = []
    for i, tensor in enumerate(tensors):
        param = nn.Parameter(tensor.clone())
        layer = Layer(f"layer{i}", "linear", tuple(tensor.shape), tensor.numel())
        slots.append(Slot(layer, param, Pattern.of(asked), torch.ones_like(param, dtype=torch.bool)))
    sizes = {slot.layer.name: slot.mask.numel() for slot in slots}

    def allocate(level: float, scores: Any) -> dict[str, int]:
        return {name: size - round(level * (size - keep_count(size, asked.density))) for name, size in sizes.items()}

    cls, timing = METHODS[method], SCHEDULES[schedule]
    made, way = cls(cls.Options(**(options or {}))), timing(timing.Options(**moments), asked)
    if isinstance(made, FollowsSchedule):
        made.schedule = way
    return Sparsifier(made, slots, way, allocate, total, seed)


def hand_probe(sparsifier: Sparsifier, batches: list[Any], classes: int = 2) -> Probe:
    """A probe whose network multiplies by the slots' weights in turn, with ReLU between; the loss is squared."""

    def loss(network: nn.Module, batch: Any, temperature: float) -> torch.Tensor:
        return ((outputs(network, batch[0]) / temperature - batch[1]) ** 2).mean()

    def outputs(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        hidden, *weights = inputs, *(layer.weight for layer in network.children())
        for weight in weights[:-1]:
            hidden = (hidden @ weight.T).relu()
        return hidden @ weights[-1].T

    network = nn.Module()
    for slot in sparsifier.slots:
        layer = nn.Module()
        layer.weight = slot.param
        network.add_module(slot.layer.name, layer)
    return Probe(network, loss, lambda: iter(batches), classes, sparsifier.seed, outputs)


def update(
    sparsifier: Sparsifier, optimizer: torch.optim.Optimizer | None, step: int, gradients: list[torch.Tensor]
) -> None:
    """One optimiser update with these gradients of the effective weights; without an optimiser nothing moves."""
    for slot, gradient in zip(sparsifier.slots, gradients, strict=True):
        slot.param.grad = gradient.clone()
    sparsifier.before_step(step, optimizer)
    if optimizer is not None:
        optimizer.step()
    sparsifier.after_step(step, optimizer)


def sgd(sparsifier: Sparsifier, lr: float = 0.1, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD([slot.param for slot in sparsifier.slots], lr=lr, **options)
