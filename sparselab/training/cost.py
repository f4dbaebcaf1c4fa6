"""The cost of a training cell, in closed form: parameters, multiply-accumulates and FLOPs. [no torch]"""

from __future__ import annotations

from typing import Any

from sparselab.core.memo import once
from sparselab.storage.ids import canonical
from sparselab.training.layers import in_whole_tiles
from sparselab.training.parts import Parts
from sparselab.weights.capabilities import LearnsTensors, alternating_update


def foresee(parts: Parts) -> dict[str, Any]:
    """The account of the finished network, and of training as the schedule foresees it."""
    from sparselab.weights.cost import cost_of, plain_cost, train_flops, train_flops_dense

    if parts.model_spec is None:
        return {}
    batch = parts.cell.trainer.batch_size
    ledger: list[tuple[int, dict[str, int]]] = [(0, {})]
    patterns = {layer.name: parts.pattern_of(layer.name) for layer in parts.layers}
    schedules = {pattern: parts.schedule.for_target(pattern) for pattern in set(patterns.values())}
    before = None
    for step in sorted({step for way in schedules.values() for step in way.updates(parts.steps)}):
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
    final = {layer.name: in_whole_tiles(layer, patterns[layer.name], parts.kept[layer.name]) for layer in parts.layers}
    numbers = cost_of(parts.model_spec, final).record()
    return {
        **{key: value for key, value in numbers.items() if key != "layers"},
        **plain_cost(parts.model_spec),
        "flops_train": train_flops(
            parts.model_spec, ledger, batch, parts.method.weight_grad,
            steps=parts.steps, dense_steps=dense_steps(parts),
        ),
        "flops_train_dense": train_flops_dense(parts.model_spec, batch, parts.steps),
        "flops_teacher": teacher_flops(parts),
    }  # fmt: skip


def teacher_flops(parts: Parts) -> int:
    """FLOPs of the teachers' forward passes, each teacher's once a batch however many losses learn from it."""
    from sparselab.weights.cost import FLOPS_PER_MAC

    teachers = {loss.taught_by for loss in parts.losses if loss.options.weight} - {None}
    samples = parts.cell.trainer.batch_size * parts.steps
    return FLOPS_PER_MAC * parts.model_spec.macs * samples * len(teachers)


def dense_steps(parts: Parts) -> list[int]:
    """Updates at which a method asks for the dense gradient: for a mask that is due, or for what it learns."""
    due = parts.schedule.updates(parts.steps) if parts.method.needs_dense_grad else []
    if not isinstance(parts.method, LearnsTensors):
        return due
    method, total = parts.method, parts.steps
    key = "learned", type(method), canonical(method.options.model_dump()), total
    learning = once(key, lambda: [s for s in range(1, total + 1) if alternating_update(method, s, total).learned])
    return [*due, *learning]
