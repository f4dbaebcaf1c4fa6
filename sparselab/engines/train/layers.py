"""Which layers of a network are sparse, and how many weights each keeps. [no torch]"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from sparselab.sparsity import uncovered
from sparselab.sparsity.count import keep_count
from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.fit import misfit
from sparselab.sparsity.layout import n_of_m, tile
from sparselab.sparsity.requests import WHERE as OWN
from sparselab.sparsity.requests import exceptions
from sparselab.sparsity.targets import select
from sparselab.spec.faults import Fault, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparselab.engines.train.parts import Parts
    from sparselab.sparsity.schedule import Schedule
    from sparselab.spec.outline import Layer, Outline
    from sparselab.spec.schema import TargetOptions
    from sparselab.spec.sparsity import Sparsity

SHOWN = 3  # faults of one kind that are printed; the rest is counted


def choose_layers(
    targets: TargetOptions,
    sparsity: Sparsity,
    own: Mapping[str, Sparsity],
    outline: Outline,
    schedule: Schedule | None = None,
) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The layers that ``targets`` selects, none for a dense cell; and those with a pattern of their own, by name.

    Refused where what is asked for includes a weight that no mask can be put on, and where a pattern, or a structure that
    ``schedule`` has on the way to it, does not fit its layer.
    """
    if sparsity.kind == "dense":
        return [], {}
    if beyond := uncovered.faults(outline, targets.include, targets.exclude):
        raise Refused(beyond)
    layers = select(outline, targets.include, targets.exclude)
    apart = exceptions(layers, sparsity, own)
    found = []
    for layer in layers:
        fault = misfit(layer, apart.get(layer.name, sparsity), targets.axis)
        found += (
            [replace(fault, where=f"{OWN}: {apart[layer.name]}") if layer.name in apart else fault] if fault else []
        )
    if schedule is not None and not found:
        ways = {pattern: schedule.towards(pattern) for pattern in {sparsity, *apart.values()}}
        tried = (_misfit_on_the_way(x, ways[apart.get(x.name, sparsity)], targets.axis) for x in layers)
        found = [fault for fault in tried if fault]
    if len(found) > SHOWN:
        found[SHOWN:] = [Fault("targets", f"{len(found) - SHOWN} more layers do not fit either", "see targets.exclude")]
    if found:
        raise Refused(found)
    return layers, apart


def _misfit_on_the_way(layer: Layer, schedule: Schedule, axis: str) -> Fault | None:
    """Why the first structure that does not fit ``layer`` does not; None if all do."""
    faults = (misfit(layer, structure, axis) for structure in schedule.structures())
    fault = next((fault for fault in faults if fault), None)
    return fault and Fault(
        f"schedule={schedule.name}", f"{fault.where.removeprefix('sparsity=')}: {fault.problem}", fault.fix
    )


def place_masks(parts: Parts, outline: Outline) -> None:
    """Choose the layers and their counts once an outline is there that could not be foreseen."""
    parts.outline = outline
    chosen = choose_layers(parts.cell.targets, parts.sparsity, parts.own, outline, parts.schedule)
    parts.layers, parts.exceptions = chosen
    if parts.layers:
        parts.kept = final_counts(parts)


def final_counts(parts: Parts) -> dict[str, int]:
    """Weights kept per layer at the end; for a ranked distribution its uniform stand-in (the total is the same).

    Exceptions keep what their pattern says; the distribution deals with the other layers alone.
    """
    fixed = {layer.name: _own_count(layer, parts.exceptions[layer.name]) for layer in parts.layers
             if layer.name in parts.exceptions}  # fmt: skip
    others = [layer for layer in parts.layers if layer.name not in fixed]
    if parts.sparsity.kind == "nm":
        return {**fixed, **{layer.name: _own_count(layer, parts.sparsity) for layer in others}}
    distribution = parts.distribution
    if distribution.needs_scores:
        distribution = DISTRIBUTIONS["uniform"](DISTRIBUTIONS["uniform"].Options())
    return {**fixed, **distribution.allocate(others, parts.sparsity.density)}


def in_whole_tiles(layer: Layer, sparsity: Sparsity, count: int) -> int:
    """How many weights a mask keeps where ``count`` are asked for: blocks and channels are kept or dropped whole."""
    size = prod(tile(sparsity, layer.kind, layer.shape))
    return count if size == 1 else keep_count(layer.numel // size, count / layer.numel) * size


def _own_count(layer: Layer, sparsity: Sparsity) -> int:
    if sparsity.kind == "nm":
        n, m = n_of_m(sparsity)
        return layer.numel // m * n
    return keep_count(layer.numel, sparsity.density)
