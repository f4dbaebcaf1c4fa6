"""The record of a finished training cell: everything a table or a sceptic asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sparselab.running.records import environment, keep
from sparselab.storage import export
from sparselab.training.cost import counts
from sparselab.training.loop.keeping import kept_files
from sparselab.training.runner import Finished
from sparselab.weights.kernels import native

if TYPE_CHECKING:
    from sparselab.running.engine import Plan
    from sparselab.training.parts import Parts


def make_record(plan: Plan, finished: Finished) -> dict[str, Any]:
    """Write model, masks and, last, the record; rank 0 only. Returns the record."""
    parts: Parts = plan.parts
    masks = {name: mask.cpu() for name, mask in finished.sparsifier.masks().items()}
    body = {
        "id": plan.id,
        "status": "finished",
        "config": plan.recorded_config(),
        "overrides": plan.overrides,
        "task": parts.task.name,
        "metrics": finished.metrics,
        "sparsity": realised(parts, finished),
        "account": counted(parts, finished),
        "seconds": round(finished.seconds, 3),
        "times": {
            "fit": round(finished.fit_seconds, 3),
            "updates": finished.pace[0],
            "updating": round(finished.pace[1], 3),
            "steps": parts.steps,
        },
        "environment": where(parts, finished),
        "data": finished.data,
    }  # fmt: skip
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return body
    config = parts.family.library_config(finished.task.network)
    buffers = [name for name, _ in finished.task.network.named_buffers()]
    beside = {**parts.dataset.companions(), **kept_files(finished.folder, parts.kept_at), **finished.pictures}
    return keep(
        finished.folder, body, lambda folder: export.export(folder, finished.state, masks, config, buffers, beside)
    )


def where(parts: Parts, finished: Finished) -> dict[str, Any]:
    """The environment. A run that went on under another one has no bits to promise (D), and says what changed."""
    found = environment(parts.cell.trainer, parts.cell.trainer.devices) | {"kernels": native.status()}
    return found | {"promise": "D", "resumed": finished.elsewhere} if finished.elsewhere else found


def realised(parts: Parts, finished: Finished) -> dict[str, Any]:
    """Return the realised sparsity, layer by layer, read from the exported tensors: a zero is a zero, whoever put it there.

    density and kept: of the masks. nonzero and realised: of the weights, of which a mask may keep zeros. holds: no group
    has more, no block or channel is there that the pattern does not allow.
    """
    layers: list[dict[str, Any]] = []
    for slot in finished.sparsifier.slots:
        weight = finished.state[slot.name]
        layers.append(
            {
                "name": slot.name,
                "shape": list(weight.shape),
                "kind": slot.layer.kind,
                "axis": parts.cell.targets.axis,
                "pattern": str(slot.pattern.sparsity),
                "density": int(slot.mask.sum()) / weight.numel(),
                "nonzero": int(torch.count_nonzero(weight)),
                "holds": slot.pattern.holds(weight, slot.kept / weight.numel()),
            }
        )
    total = sum(slot.mask.numel() for slot in finished.sparsifier.slots)
    kept = sum(int(slot.mask.sum()) for slot in finished.sparsifier.slots)
    nonzero = sum(layer["nonzero"] for layer in layers)
    return {
        "requested": parts.asked,
        "realised": 1 - nonzero / total if total else 0.0,
        "weights": total,
        "kept": kept,
        "pattern_holds": all(layer["holds"] for layer in layers),
        "layers": layers,
        "uncovered": [{"name": one.name, "shape": list(one.shape)} for one in parts.uncovered],
    }


def counted(parts: Parts, finished: Finished) -> dict[str, Any]:
    """The cost of the network as it is, and of the training as it went (the ledger of kept weights)."""
    assert parts.model_spec is not None
    there = {layer.name: int(torch.count_nonzero(finished.state[layer.tensor])) for layer in parts.model_spec.layers}
    return {**counts(parts, there, finished.sparsifier.ledger or [(0, {})]), "updates": parts.steps}
