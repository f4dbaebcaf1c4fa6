"""The sparsifier of a network that has been built."""

from __future__ import annotations

import torch

from sparselab.core.model_spec import EXPERTS, Layer
from sparselab.training.given_masks import given_masks
from sparselab.training.parts import Parts
from sparselab.weights.capabilities import takes_biases
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier
from sparselab.weights.targets import select
from sparselab.weights.whole_units import WholeUnits


def make_sparsifier(parts: Parts, network: torch.nn.Module) -> Sparsifier:
    """Slots for the chosen layers (a tied weight gets one), and the counts that the distribution gives them."""
    slots: list[Slot] = []
    seen: set[int] = set()
    for layer in parts.layers:
        param = network.get_parameter(layer.tensor)
        if id(param) in seen:
            continue
        seen.add(id(param))
        # Each expert keeps its share, unless the distribution ranks all weights together.
        apart = layer.groups if layer.kind in EXPERTS and not parts.distribution.needs_scores else 1
        pattern = Pattern.of(parts.pattern_of(layer.name), layer.kind, parts.cell.targets.axis, apart)
        scale = getattr(network.get_submodule(layer.norm), "weight", None) if layer.norm else None
        bias = _bias(parts, network, layer, pattern)
        slots.append(Slot(layer, param, pattern, torch.ones_like(param, dtype=torch.bool), scale=scale, bias=bias))
    units = WholeUnits.of(slots, network)
    if parts.cell.targets.masks is not None:
        given = given_masks(parts, slots)
        counts = parts.kept = {slot.layer.name: int(given[slot.name].sum()) for slot in slots}
        made = Sparsifier(
            parts.method, slots, parts.schedule, lambda *_: counts, parts.steps, parts.cell.seed, units=units
        )
        made.given = given
        made.begins, made.epochs = parts.begins, parts.epoch_begins
        made.shuffled = parts.cell.targets.shuffle
        return made
    distribution, density = parts.distribution, parts.sparsity.density
    sizes = {layer.name: layer.numel for layer in parts.layers}

    def allocate(level: float, scores: dict[str, torch.Tensor] | None) -> dict[str, int]:
        kept = {name: size - round(level * (size - parts.kept[name])) for name, size in sizes.items()}
        if scores is not None:
            ranked = {name: score for name, score in scores.items() if name not in parts.exceptions}
            kept |= distribution.allocate_scored(ranked, 1 - level * (1 - density))
        return kept

    judge = distribution.score if distribution.own_scores else None
    made = Sparsifier(
        parts.method, slots, parts.schedule, allocate, parts.steps, parts.cell.seed, distribution.needs_scores, judge,
        units,
    )  # fmt: skip
    made.begins, made.epochs = parts.begins, parts.epoch_begins
    made.smallest = parts.cell.targets.keep == "smallest"
    made.shuffled = parts.cell.targets.shuffle
    return made


def _bias(parts: Parts, network: torch.nn.Module, layer: Layer, pattern: Pattern) -> torch.nn.Parameter | None:
    """The bias of a layer of whole units, where the method trains it with them."""
    if not (pattern.sparsity.whole and takes_biases(parts.method)):
        return None
    bias = getattr(network.get_submodule(layer.module), "bias", None)
    return bias if bias is not None and bias.requires_grad else None


def targeted(parts: Parts, network: torch.nn.Module) -> dict[Layer, torch.nn.Parameter]:
    """The weights that the cell's targets name, by layer, of a dense cell too; a tied one once."""
    options = parts.cell.targets
    assert parts.model_spec is not None
    layers = parts.layers or select(parts.model_spec, options.include, options.exclude)
    found: dict[int, tuple[Layer, torch.nn.Parameter]] = {}
    for layer in layers:
        param = network.get_parameter(layer.tensor)
        found.setdefault(id(param), (layer, param))
    return dict(found.values())
