"""The cost of a training cell, in closed form: parameters, multiply-accumulates and FLOPs [no torch]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparselab.core.memo import once
from sparselab.storage.ids import canonical
from sparselab.training.layers import in_whole_tiles
from sparselab.training.parts import Parts
from sparselab.weights.capabilities import DrawsMasks, LearnsTensors, ThinsGradients, alternating_update
from sparselab.weights.whole_units import with_readers

if TYPE_CHECKING:
    from sparselab.core.sparsity import Sparsity
    from sparselab.training.losses.extra_loss import ExtraLoss

Ledger = Sequence[tuple[int, Mapping[str, int]]]
"""The weights that each layer keeps, from after an update on: (update, number by layer), in order."""


def counts(parts: Parts, kept: Mapping[str, int], ledger: Ledger) -> dict[str, Any]:
    """The cost of a network in which layers keep ``kept`` weights (a layer not named all), and of its training."""
    from sparselab.weights.cost import cost_of, forward_flops, plain_cost, train_flops, train_flops_dense

    model_spec, batch = parts.model_spec, parts.cell.trainer.batch_size
    assert model_spec is not None
    ledger = [(step, reading(parts, there)) for step, there in ledger]
    cost = cost_of(model_spec, kept)
    replays = sum(loss.replays for loss in parts.losses if loss.options.weight)
    passes = parts.adapt.passes(parts.steps, batch, parts.data.train) if parts.adapt else None
    trained = (
        train_flops(
            model_spec, ledger, batch, parts.method.weight_grad, steps=parts.steps, dense_steps=dense_steps(parts),
            moved=moved(parts),
        )
        if passes is None
        else cost.flops * passes
    )  # fmt: skip
    replayed = trained + replays * forward_flops(model_spec, ledger, batch, parts.steps) if replays else None
    return {
        **cost.record(),
        **plain_cost(model_spec),
        "flops_train": trained,
        **({"flops_replay": replayed} if replayed is not None else {}),
        "flops_train_dense": train_flops_dense(model_spec, batch, parts.steps),
        "flops_teacher": teacher_flops(parts),
    }


def moved(parts: Parts) -> dict[str, int]:
    """Weights of each layer that an update moves, where the method moves fewer than its masks keep."""
    method = parts.method
    share = method.moving_share if isinstance(method, ThinsGradients) else None
    return {} if share is None else {layer.name: round(share * layer.numel) for layer in parts.layers}


def foresee(parts: Parts) -> dict[str, Any]:
    """The cost of the finished network, and of training as the schedule foresees it; without its single layers."""
    if parts.model_spec is None:
        return {}
    patterns = {layer.name: parts.pattern_of(layer.name) for layer in parts.layers}
    final = {layer.name: in_whole_tiles(layer, patterns[layer.name], parts.kept[layer.name]) for layer in parts.layers}
    foreseen = counts(parts, reading(parts, final), _foreseen(parts, patterns))
    return {key: value for key, value in foreseen.items() if key != "layers"}


def reading(parts: Parts, kept: Mapping[str, int]) -> dict[str, int]:
    """The weights that layers keep where masks keep ``kept``: what they read of dropped units goes, too."""
    assert parts.model_spec is not None
    patterns = {layer.name: parts.pattern_of(layer.name) for layer in parts.layers}
    return with_readers(parts.model_spec.layers, patterns, kept)


def _foreseen(parts: Parts, patterns: Mapping[str, Sparsity]) -> Ledger:
    """The ledger that the schedule gives the layers of these patterns."""
    ledger: list[tuple[int, dict[str, int]]] = [(0, {})]
    schedules = {pattern: parts.schedule.for_target(pattern) for pattern in set(patterns.values())}
    before = None
    due = {step for way in schedules.values() for step in way.updates(parts.steps)}
    for step in sorted(due | set(parts.begins[1:])):  # a task may begin with other counts
        levels = {pattern: way.costing(step, parts.steps) for pattern, way in schedules.items()}
        if levels == before:  # the mask moves, its density does not
            continue
        before = levels
        kept = {}
        for layer in parts.layers:
            pattern = patterns[layer.name]
            asked = layer.numel - round(levels[pattern] * (layer.numel - parts.kept[layer.name]))
            kept[layer.name] = in_whole_tiles(layer, pattern, asked)
        if ledger and ledger[-1][0] == step:
            ledger.pop()
        ledger.append((step, kept))
    return ledger


def teacher_flops(parts: Parts) -> int:
    """FLOPs of what extra losses, and a search, compute beside the network's own passes.

    The forward passes of teachers, each teacher's once a batch however many losses learn from it, and what losses compute by
    themselves; both in the updates that have the loss.
    """
    from sparselab.weights.cost import FLOPS_PER_MAC

    assert parts.model_spec is not None
    teachers: dict[str, int] = {}  # updates by teacher
    passes = 0
    for loss in parts.losses:
        if not loss.options.weight:
            continue
        updates = _updates_of(loss, parts)
        passes += loss.own_passes * updates
        if loss.taught_by is not None:
            teachers[loss.taught_by] = max(updates, teachers.get(loss.taught_by, 0))
    passes += sum(teachers.values())
    passes += parts.search.passes * parts.steps if parts.search else 0
    return FLOPS_PER_MAC * parts.model_spec.macs * parts.cell.trainer.batch_size * passes


def _updates_of(loss: ExtraLoss, parts: Parts) -> int:
    """How many updates have this loss."""
    if not (loss.of_search and isinstance(parts.method, DrawsMasks)):
        return parts.steps
    return min([*parts.schedule.updates(parts.steps)[:1], parts.steps])


def dense_steps(parts: Parts) -> list[int]:
    """Updates at which a method asks for the dense gradient: for a mask that is due, or for what it learns."""
    due = parts.schedule.updates(parts.steps) if parts.method.needs_dense_grad else []
    if not isinstance(parts.method, LearnsTensors):
        return due
    method, total = parts.method, parts.steps
    key = "learned", type(method), canonical(method.options.model_dump()), total
    learning = once(key, lambda: [s for s in range(1, total + 1) if alternating_update(method, s, total).learned])
    return [*due, *learning]
