"""Kinds of a file's tensors, from their names and shapes: how layers are stored, and which are no parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sparselab.storage.export import BUFFERS
from sparselab.storage.tensors import Header

BUFFER_NAMES = frozenset(
    {"running_mean", "running_var", "num_batches_tracked", "inv_freq", "masked_bias", "relative_position_index"}
)
"""Last parts of the names of state that torch, timm and transformers keep beside parameters."""


def buffers(header: Header) -> set[str]:
    """Tensors that are state and no parameters: those that the file lists, else those that are known by name.

    Whole numbers and truth values are state too, unless the file holds nothing else (masks); so is a ``bias`` of four
    dimensions, a causal mask in old GPT-2 files.
    """
    if BUFFERS in header.metadata:
        try:
            listed = json.loads(header.metadata[BUFFERS])
        except ValueError:
            listed = None
        if isinstance(listed, list):
            return {name for name in listed if isinstance(name, str)}
    exact = {name for name, entry in header.tensors.items() if entry.dtype.startswith(("int", "uint", "bool"))}
    found = set() if len(exact) == len(header.tensors) else exact
    for name, entry in header.tensors.items():
        last = name.rpartition(".")[2]
        if last in BUFFER_NAMES or (last == "bias" and len(entry.shape) == 4):
            found.add(name)
    return found


def kinds(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The kind (as ``Layer.kind``) of each tensor of two dimensions and more.

    A matrix with a bias as long as its second dimension, and not its first, is stored (in, out) as transformers' GPT-2
    does; a square one goes with those of its name. Stacks of matrices below ``experts`` are read like the pair of them,
    or as their bias says; where nothing tells, inputs come last.
    """
    found: dict[str, str] = {}
    votes: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        if len(shape) != 2:
            continue
        path, word = name.rpartition(".")[0], name.split(".")[-2:-1]
        bias = shapes.get(f"{path}.bias", ()) if name.endswith(".weight") else ()
        if len(bias) == 1 and shape[0] != shape[1] and bias[0] in shape:
            found[name] = "linear" if bias[0] == shape[0] else "conv1d"
            votes.setdefault("".join(word), set()).add(found[name])
    for name, shape in shapes.items():
        if name in found or len(shape) < 2:
            continue
        if len(shape) == 3 and "experts" in name.split("."):
            found[name] = _experts(name, shape, shapes)
        elif len(shape) == 2:
            square = shape[0] == shape[1] and f"{name.rpartition('.')[0]}.bias" in shapes
            alike = votes.get("".join(name.split(".")[-2:-1]), set())
            found[name] = "conv1d" if square and alike == {"conv1d"} else "linear"
        else:
            found[name] = "conv"
    return found


def _experts(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> str:
    bias = shapes.get(f"{name}_bias", ())
    if len(bias) == 2 and shape[1] != shape[2]:
        return "experts1d" if bias[1] == shape[2] else "experts"
    parent = name.rpartition(".")[0]
    up, down = (shapes.get(f"{parent}.{word}_proj", ()) for word in ("gate_up", "down"))
    stored_in_out = len(up) == len(down) == 3 and up[1] == down[2] and up[2] == 2 * down[1]
    out_in = len(up) == len(down) == 3 and up[2] == down[1] and up[1] == 2 * down[2]
    return "experts1d" if stored_in_out and not out_in else "experts"
