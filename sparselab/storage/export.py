"""The sparse network as files that anybody can read: ``model.safetensors`` and ``masks.safetensors``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import Issue, RunFailed
from sparselab.storage import atomic, tensors
from sparselab.storage.atomic import shown

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "model.safetensors"
MASKS = "masks.safetensors"
CONFIG = "config.json"
ADAPT = "adapt.safetensors"  # what an adapt put around the network, which stays a plain one
TASKS = "tasks.safetensors"  # of a scenario: weights of all tasks, and the masks of each
EARLY = "model@{}.safetensors"  # the network at a point of its run
BUFFERS = "buffers"  # metadata key: JSON of the names of tensors that are state and no parameters


def export(
    folder: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    buffers: Iterable[str] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> dict[str, dict[str, int | str]]:
    """Write the network under its own names, and its masks (True = kept) under the names of the tensors they mask.

    Tensors that are one (tied weights) are stored once, under the name that comes first in ``state_dict``, which is the
    one transformers looks for; the other names stand in the metadata, and ``sparselab.storage.tensors.load`` brings them
    back. ``config`` becomes ``config.json`` beside them, ``beside`` further files by name. ``buffers``: which tensors are no
    parameters, for the metadata (None: not said). Returns ``{file: {"size": bytes, "sha256": hexadecimal}}`` for the record.
    :class:`RunFailed` when a mask fits no tensor, when a weight that its mask prunes is not exactly zero, or when the disk
    refuses.
    """
    folder = Path(folder)
    kept, aliases = _untie(state_dict)
    masks = {aliases.get(name, name): mask for name, mask in masks.items()}
    for name, mask in masks.items():
        _check_mask(name, mask, kept)
    written = {
        MODEL: _save(folder / MODEL, kept, aliases, buffers),
        MASKS: tensors.save_masks(folder / MASKS, masks),
    }
    if config is not None:
        written[CONFIG] = atomic.render(config)
        atomic.write_bytes(folder / CONFIG, written[CONFIG])
    for name, data in (beside or {}).items():
        written[name] = data
        atomic.write_bytes(folder / name, data)
    return {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in written.items()}


def early(point: str) -> str:
    """The name of the file that holds the network at a point of its run, spelled (``100``, ``2epochs``)."""
    return EARLY.format(point)


def save_early(
    folder: str | os.PathLike[str], point: str, state_dict: Mapping[str, Tensor], buffers: Iterable[str]
) -> None:
    """Write the network as it is now, as :func:`export` writes the finished one.

    Args:
        folder: of the run
        point: the name of the point, such as ``100`` or ``2epochs``
        state_dict: of the network as it is now
        buffers: names in it that are no parameters

    Raises:
        RunFailed: the disk refuses.
    """
    kept, aliases = _untie(state_dict)
    _save(Path(folder) / early(point), kept, aliases, buffers)


def _save(path: Path, kept: Mapping[str, Tensor], aliases: Mapping[str, str], buffers: Iterable[str] | None) -> bytes:
    metadata = {tensors.ALIASES: json.dumps(aliases, sort_keys=True)} if aliases else {}
    if buffers is not None:
        metadata[BUFFERS] = json.dumps(sorted(set(buffers) & kept.keys()))
    return tensors.save(path, kept, metadata)


def _untie(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, and the other names of those that have several."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in state_dict.items():
        same = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and same in first:
            aliases[name] = first[same]
        else:
            first[same] = name
            kept[name] = tensor
    return kept, aliases


def _check_mask(name: str, mask: Tensor, kept: Mapping[str, Tensor]) -> None:
    weight = kept.get(name)
    if weight is None or weight.shape != mask.shape:
        problem = "its mask has another shape" if weight is not None else "there is a mask and no such tensor"
        raise RunFailed(str(Issue(shown(name), problem, "report this as a bug")))
    revived = int((weight.detach()[~mask.to(weight.device)] != 0).sum())
    if revived:
        raise RunFailed(str(Issue(shown(name), f"{revived:,} pruned weights are not zero", "report this as a bug")))
