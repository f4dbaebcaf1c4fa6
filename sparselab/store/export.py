"""The sparse network as files that anybody can read: ``model.safetensors`` and ``masks.safetensors``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.spec.faults import Fault, RunFailed
from sparselab.store import atomic, tensors
from sparselab.store.atomic import shown

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "model.safetensors"
MASKS = "masks.safetensors"
CONFIG = "config.json"


def export(
    folder: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> dict[str, dict[str, int | str]]:
    """Write the network under its own names, and its masks (True = kept) under the names of the tensors they mask.

    Tensors that are one (tied weights) are stored once, under the name that comes first in ``state_dict``, which is the
    one transformers looks for; the other names stand in the metadata, and ``sparselab.store.tensors.load`` brings them
    back. ``config`` becomes ``config.json`` beside them, ``beside`` further files by name. Returns ``{file: {"size": bytes,
    "sha256": hexadecimal}}`` for the record. :class:`RunFailed` when a mask fits no tensor, when a weight that its mask prunes
    is not exactly zero, or when the disk refuses.
    """
    folder = Path(folder)
    kept, aliases = _untie(state_dict)
    masks = {aliases.get(name, name): mask for name, mask in masks.items()}
    for name, mask in masks.items():
        _check_mask(name, mask, kept)
    metadata = {tensors.ALIASES: json.dumps(aliases, sort_keys=True)} if aliases else {}
    written = {
        MODEL: tensors.save(folder / MODEL, kept, metadata),
        MASKS: tensors.save_masks(folder / MASKS, masks),
    }
    if config is not None:
        written[CONFIG] = atomic.render(config)
        atomic.write_bytes(folder / CONFIG, written[CONFIG])
    for name, data in (beside or {}).items():
        written[name] = data
        atomic.write_bytes(folder / name, data)
    return {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in written.items()}


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
        raise RunFailed(str(Fault(shown(name), problem, "report this as a bug")))
    revived = int((weight.detach()[~mask.to(weight.device)] != 0).sum())
    if revived:
        raise RunFailed(str(Fault(shown(name), f"{revived:,} pruned weights are not zero", "report this as a bug")))
