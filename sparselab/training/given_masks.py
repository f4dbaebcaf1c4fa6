"""The first masks of a cell, from a file (``targets.masks``), whatever its method [no torch at import]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparselab.core.errors import ConfigError, Issue, refuse
from sparselab.inputs.models.weights import place, read_header
from sparselab.running.parents import TICKET
from sparselab.running.parts import pending
from sparselab.weights.capabilities import MeasuresFirst, ReadsInputs, by_chance, finds_counts, masks_given
from sparselab.weights.count import chance_miss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.model_spec import Layer
    from sparselab.training.parts import Parts, UncheckedParts
    from sparselab.weights.schedules import Schedule
    from sparselab.weights.slot import Slot


def combination(made: UncheckedParts) -> list[Issue]:
    """Issues of method and schedule with masks that are there from the start and are the method's to keep."""
    path = made.cell.targets.masks
    if path is None or not made.has("method", "sparsity", "schedule"):
        return []
    method, schedule = made.parts["method"], made.parts["schedule"]
    if not made.parts["sparsity"].prunes:
        return [Issue(TICKET, "a dense cell has no masks", "write method=ticket and a sparsity, or leave it out")]
    if method.every_step:
        problem = f"method={method.name} makes new masks at every update, so these would be lost"
        return [Issue(TICKET, problem, "write method=ticket, or another one that keeps its masks")]
    if not whole_at_start(schedule, made.steps):
        problem = f"schedule={schedule.name} does not begin with its final masks"
        return [Issue(TICKET, problem, "choose what begins sparse, such as method=ticket")]
    if isinstance(method, ReadsInputs):
        return [masks_given(made.parts["method"].name)]
    vain = method.measured_in_vain() if isinstance(method, MeasuresFirst) else None
    return [vain] if vain else []


def whole_at_start(schedule: Schedule, steps: int) -> bool:
    """True for a schedule that makes masks of the final sparsity and structure before the first update."""
    begins = schedule.updates(steps)[:1] == [0] and schedule.level(0, steps) == 1
    return begins and not schedule.soft and len(schedule.structures()) == 1


def header_issues(parts: Parts, dependencies: Mapping[str, str]) -> list[Issue]:
    """Issues of the file with the layers and the number of weights that are asked for, as far as it is there."""
    path = parts.cell.targets.masks
    if path is None or not parts.layers or pending(path, dependencies):
        return []
    if wrong := file_issues(path, TICKET, parts.layers):
        return wrong
    from safetensors import safe_open

    layers = {layer.tensor: layer for layer in parts.layers}
    with safe_open(str(Path(path).expanduser()), framework="np") as file:
        kept = {layers[name].name: int(file.get_tensor(name).sum()) for name in layers}
    return count_issues(parts, kept)


def file_issues(path: str, key: str, sparse: Sequence[Layer]) -> list[Issue]:
    """The first issue of a file of masks, the value of ``key``, with the layers that it is to be of."""
    where = place(path, key)
    found = read_header(path, key)
    layers = {layer.tensor: layer for layer in sparse}
    if lacking := [name for name in layers if name not in found]:
        return [
            Issue(
                where,
                f"has no mask of {lacking[0]}{_more(lacking)}",
                "choose the layers that it masks (targets.include)",
            )
        ]
    if others := [name for name in found if name not in layers]:
        return [
            Issue(where, f"masks {others[0]}{_more(others)}, not sparse here", "choose its layers (targets.exclude)")
        ]
    for name, layer in layers.items():
        if found[name].dtype != "BOOL":
            return [Issue(where, f"{name} is {found[name].dtype}, and a mask is bool", "give a masks.safetensors")]
        if found[name].shape != layer.shape:
            shapes = f"{list(found[name].shape)}, not {list(layer.shape)}"
            return [Issue(where, f"shape of {name} is {shapes}", "match model and dataset to the file")]
    return []


def count_issues(parts: Parts, kept: Mapping[str, int]) -> list[Issue]:
    """A fault where the masks keep more or fewer weights than was asked for, beyond a unit of each layer.

    Rounding differs between distributions; how many weights each layer keeps is the masks' own affair.
    """
    total, want = sum(kept.values()), sum(parts.kept[name] for name in kept)
    leeway: float = sum(parts.pattern_of(layer.name).unit_size(layer.kind, layer.shape) for layer in parts.layers)
    if by_chance(parts.method):
        leeway = max(leeway, chance_miss((parts.kept[layer.name], layer.numel) for layer in parts.layers))
    if finds_counts(parts.method) or abs(total - want) <= leeway:
        return []
    weights = sum(layer.numel for layer in parts.layers)
    where = place(parts.cell.targets.masks or "", TICKET)
    problem = f"keeps {total:,} of {weights:,} weights, not {want:,}"
    return [Issue(where, problem, f"write sparsity={1 - total / weights:.4g}")]


def given_masks(parts: Parts, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """The masks of the file by name of the tensor, where and as the slots' own lie. ConfigError where they do not fit."""
    import torch

    from sparselab.storage.tensors import load_masks

    path = parts.cell.targets.masks
    assert path is not None
    if issues := header_issues(parts, {}):
        raise ConfigError(issues)
    masks = load_masks(Path(path).expanduser())
    given = {slot.name: torch.empty_like(slot.mask).copy_(masks[slot.name]) for slot in slots}
    for slot in slots:
        if not slot.pattern.holds(given[slot.name]):
            refuse(
                place(path, TICKET), f"{slot.name} breaks {slot.pattern.sparsity}", "ask for the pattern that it has"
            )
    return given


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


__all__ = ["combination", "file_issues", "given_masks", "header_issues"]
