"""The record of a finished training cell: everything a table or a sceptic asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sparselab.engines.records import environment, keep
from sparselab.engines.train.engine import dense_steps, teacher_flops
from sparselab.engines.train.runner import Finished
from sparselab.sparsity import native
from sparselab.sparsity.account import account, plain_cost, train_flops, train_flops_dense
from sparselab.store import export
from sparselab.store import record as records

if TYPE_CHECKING:
    from sparselab.engines.engine import Plan
    from sparselab.engines.train.parts import Parts


def make_record(plan: Plan, finished: Finished) -> dict[str, Any]:
    """Write model, masks and, last, the record; rank 0 only. Returns the record."""
    parts: Parts = plan.parts
    masks = {name: mask.cpu() for name, mask in finished.sparsifier.masks().items()}
    body = {
        "id": plan.id,
        "status": "finished",
        "config": plan.recorded_config(),
        "overrides": plan.overrides,
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
        "environment": environment(parts.cell.trainer, parts.cell.trainer.devices) | {"kernels": native.status()},
        "data": {"name": parts.data.name, "title": parts.data.title, "fingerprint": parts.data.fingerprint,
                 "content": finished.content, "source": parts.data.source,
                 "train": parts.data.train, "val": parts.data.val, "test": parts.data.test},
    }  # fmt: skip
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return body
    config = parts.family.library_config(finished.task.network)
    keep(finished.folder, body, lambda folder: export.export(folder, finished.state, masks, config))
    return records.read(finished.folder, plan.id)


def realised(parts: Parts, finished: Finished) -> dict[str, Any]:
    """What is really sparse, layer by layer, read from the exported tensors."""
    layers = []
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
                "holds": bool(slot.pattern.holds(weight != 0)) if slot.pattern.sparsity.kind == "nm" else True,
            }
        )
    total = sum(slot.mask.numel() for slot in finished.sparsifier.slots)
    kept = sum(int(slot.mask.sum()) for slot in finished.sparsifier.slots)
    return {
        "requested": parts.asked,
        "realised": 1 - kept / total if total else 0.0,
        "weights": total,
        "kept": kept,
        "pattern_holds": all(layer["holds"] for layer in layers),
        "layers": layers,
    }


def counted(parts: Parts, finished: Finished) -> dict[str, Any]:
    """The account of the network as it is, and of the training as it went (the ledger of kept weights)."""
    batch, ledger = parts.cell.trainer.batch_size, finished.sparsifier.ledger
    kept = ledger[-1][1] if ledger else {}
    trained = train_flops(
        parts.outline, ledger or [(0, {})], batch, parts.method.weight_grad,
        steps=parts.steps, dense_steps=dense_steps(parts),
    )  # fmt: skip
    return {
        **account(parts.outline, kept).record(),
        **plain_cost(parts.outline),
        "flops_train": trained,
        "flops_train_dense": train_flops_dense(parts.outline, batch, parts.steps),
        "flops_teacher": teacher_flops(parts),
        "updates": parts.steps,
    }
