"""Fills a network from a safetensors file: everything is compared first, then copied."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sparselab.core.errors import ConfigError, Issue, refuse
from sparselab.inputs.models.weights import ANOTHER, Entry, Part, compare, divide, place, read_header

COUNTER = ".num_batches_tracked"

SPELLING = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def load_weights(
    model: nn.Module,
    path: str | Path,
    key: str = "model.weights",
    part_of: Callable[[str], Part | None] | None = None,
    left: Collection[str] = (),
) -> None:
    """Copy every tensor of the file at ``path`` into ``model``'s state (parameters and persistent buffers).

    Names, shapes and dtypes must agree exactly, but that half precision widens to float32, and that a batch norm's counter of
    batches, which no score depends on, may be left out; of a tied tensor one name is enough, and where the file has several
    they must be equal. ``part_of`` says of which larger tensor of the file one that it lacks is a part. Tensors of the
    names ``left`` are not read: the model keeps its own, whatever the file holds. Raises
    :class:`ConfigError`, before any copy, for any difference and for values that are not finite.
    """
    found = {name: entry for name, entry in read_header(path, key).items() if name not in left}
    where = place(path, key)
    state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in left}
    groups = _ties(state)
    expected = {name: Entry(SPELLING[tensor.dtype], tuple(tensor.shape)) for name, tensor in state.items()}
    for names in groups:
        present = [name for name in names if name in found]
        for name in names:
            if present and name not in found:
                del expected[name]
    for name in [name for name in expected if name.endswith(COUNTER) and name not in found]:
        del expected[name]
    shapes = {name: entry.shape for name, entry in expected.items()}
    found, parts = divide(found, shapes, part_of) if part_of else (found, {})
    issues = compare(found, expected, where)
    if issues:
        raise ConfigError(issues)
    try:
        with safe_open(str(Path(path).expanduser()), framework="pt") as file:
            tensors = {name: _read(file, name, parts.get(name), shapes[name]) for name in expected}
    except (SafetensorError, OSError):
        refuse(where, "cannot be read to its end", ANOTHER)
    issues = [
        Issue(where, f"tensor {name} holds NaN or infinity", ANOTHER)
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ][:1]
    for names in groups:
        present = [name for name in names if name in tensors]
        if any(not torch.equal(tensors[present[0]], tensors[name]) for name in present[1:]):
            issues.append(Issue(where, f"{' and '.join(present)} differ and are one tensor here", ANOTHER))
    if issues:
        raise ConfigError(issues)
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def _read(file: Any, name: str, part: Part | None, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor, or its part of a larger one (compared before: there is an axis)."""
    if part is None:
        return file.get_tensor(name)
    whole = file.get_tensor(part.whole)
    axis = part.axis(tuple(whole.shape), shape)
    assert axis is not None
    return whole.chunk(part.count, axis)[part.index]


def _ties(state: dict[str, torch.Tensor]) -> list[list[str]]:
    """Names that are the same tensor, in groups of two and more."""
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
