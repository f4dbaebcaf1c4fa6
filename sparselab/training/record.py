"""The record of a finished training cell: everything a table or a sceptic asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.points import update_of
from sparselab.inputs.models.genotype import FILE
from sparselab.running.records import environment, keep
from sparselab.storage import export, tensors
from sparselab.storage import record as records
from sparselab.training.cost import counts
from sparselab.training.loop.keeping import kept_files
from sparselab.training.runner import Finished
from sparselab.training.searches.picture import picture
from sparselab.weights.capabilities import KnowsTasks
from sparselab.weights.kernels import native

if TYPE_CHECKING:
    from collections.abc import Collection

    from sparselab.inputs.models.genotype import Genotype
    from sparselab.running.engine import Plan
    from sparselab.training.parts import Parts


def make_record(plan: Plan, finished: Finished) -> dict[str, Any]:
    """Write model, masks and, last, the record; rank 0 only. Returns the record."""
    parts: Parts = plan.parts
    genotype = parts.family.genotype(finished.task.network)
    masks = {name: mask.cpu() for name, mask in finished.sparsifier.masks().items()}
    body = {
        "id": plan.id,
        "status": "finished",
        "config": plan.recorded_config(),
        "overrides": plan.overrides,
        "task": parts.task.name,
        "metrics": finished.metrics,
        "sparsity": realised(parts, finished),
        "account": (account := counted(parts, finished)),
        "seconds": round(finished.seconds, 3),
        "times": {
            "fit": round(finished.fit_seconds, 3),
            "updates": finished.pace[0],
            "updating": round(finished.pace[1], 3),
            "steps": parts.steps,
            **lineage(plan, finished, account["flops_train"]),
        },
        "environment": where(parts, finished),
        "data": finished.data,
    }  # fmt: skip
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return body
    body |= {"genotype": genotype.tree()} if genotype else {}
    config = parts.family.library_config(finished.task.network)
    buffers = [name for name, _ in finished.task.network.named_buffers()]
    state, put = apart(finished.state, parts.adapt.puts if parts.adapt else ())
    put |= of_tasks(parts, finished) | of_genotype(genotype)
    beside = {**parts.dataset.companions(), **kept_files(finished.folder, parts.kept_at), **finished.pictures, **put}
    return keep(finished.folder, body, lambda folder: export.export(folder, state, masks, config, buffers, beside))


def apart(state: dict[str, torch.Tensor], modules: Collection[str]) -> tuple[dict[str, torch.Tensor], dict[str, bytes]]:
    """Divide ``state``, tensors of any shapes by name.

    Returns:
        The tensors of the given network, as its library knows them; the files of those that an adapt put around it.
    """
    own = {name: tensor for name, tensor in state.items() if name.partition(".")[0] in modules}
    plain = {name: tensor for name, tensor in state.items() if name not in own}
    return plain, {export.ADAPT: tensors.packed(own)} if own else {}


def of_genotype(genotype: Genotype | None) -> dict[str, bytes]:
    """Files of a network of cells: its genotype, and a picture of it."""
    if genotype is None:
        return {}
    return {FILE: genotype.rendered(), FILE.replace(".json", ".png"): picture(genotype)}


def of_tasks(parts: Parts, finished: Finished) -> dict[str, bytes]:
    """Files of a scenario: the matrix of accuracies, and the weights and masks of each task where the method keeps them."""
    if finished.task.course is None:
        return {}
    method = parts.method
    kept = method.kept(finished.sparsifier.slots) if isinstance(method, KnowsTasks) else {}
    whole = {name: tensor.cpu() for name, tensor in kept.items()}
    return {"accuracies.csv": finished.task.course.table(), **({export.TASKS: tensors.packed(whole)} if whole else {})}


def lineage(plan: Plan, finished: Finished, flops: float) -> dict[str, Any]:
    """Return what the cell cost with all cells that it stands on, each once.

    ``lineage_fit`` is in seconds, ``lineage_steps`` in updates, ``lineage_flops`` in FLOPs of training, and ``lineage`` names
    these cells with their own. Nothing where one of them does not say; no FLOPs where an older record does not say those.

    Of a cell whose early weights are taken its updates up to there count, and the same share of its seconds and FLOPs.

    Args:
        plan: of the cell.
        finished: its run.
        flops: of its own training.
    """
    stood_on: dict[str, list[float]] = {}
    for path, said in plan.dependencies.items():
        cell, _, point = said.partition("@")
        record = records.glance(Path(path).parent, cell)
        if record is None or "steps" not in record.get("times", {}):
            return {}
        times, steps = record["times"], record["times"]["steps"]
        batches = record["data"]["train"] // record["config"]["trainer"]["batch_size"]
        taken = update_of(point, batches) if point else steps
        share = taken / steps if steps else 1.0
        own = [round(times["fit"] * share, 3), taken, record["account"]["flops_train"] * share]
        stood_on |= {**times.get("lineage", {}), cell: max(own, stood_on.get(cell, own), key=lambda cost: cost[1])}
    costs = [*stood_on.values(), [round(finished.fit_seconds, 3), plan.parts.steps, flops]]
    whole = {"lineage": stood_on} if stood_on else {}
    whole |= {"lineage_fit": round(sum(cost[0] for cost in costs), 3), "lineage_steps": int(sum(c[1] for c in costs))}
    said_all = all(len(cost) > 2 for cost in costs)  # records from before FLOPs were counted have two numbers a cell
    return {**whole, "lineage_flops": sum(cost[2] for cost in costs)} if said_all else whole


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
