"""The outcome of a cell whose network writes token after token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sparselab.inference.count import active_share, counted, realised
from sparselab.inference.decoding.cached.cell import (
    Reference,
    check_room,
    counted_texts,
    judged,
    nats,
    reference,
    scores,
)
from sparselab.inference.decoding.cached.reader import Rules
from sparselab.inference.decoding.cached.writing import write_all
from sparselab.inference.decoding.loop import Loop, LoopOptions
from sparselab.inputs.data.splits import loaded
from sparselab.running.single_process import Outcome
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.inference.parts import Bench, Parts


def outcome(loop: Loop, bench: Bench) -> Outcome:
    """Write texts token after token, and compare them with those of the network without its rules."""
    parts, model, model_spec, splits, stop = bench.parts, bench.model, bench.model_spec, bench.splits, bench.stop
    dataset: Any = parts.dataset
    prompts = dataset.prompts(splits, loop.options.prompts, parts.cell.seed)
    check_room(prompts, loop, parts.family.longest(parts.data))
    dense = kept_texts(parts, loop, model, lambda: reference(loop, model, prompts, parts.cell.seed, stop.check))
    with bench.ruled() as (active, masking, attached):
        rules = Rules(masking, attached)
        written, passes = write_all(loop, model, rules, prompts, parts.cell.seed, stop.check)
        rules.set("off")
        total = nats(model, prompts, written)
    ledger = None if attached is None else attached.ledger
    block = parts.data.shape[0]
    _, measured = counted(model_spec, active, masking, ledger, block)
    cost, metrics = counted_texts(loop, written, passes, model_spec, active, masking, block)
    right, dense_right = (judged(dataset, prompts, some) for some in (written, dense.texts))
    metrics.update(scores(written, total, dense, right, dense_right))
    metrics.update(measured)
    metrics["test.active_share"] = active_share(model_spec, active, masking)
    return Outcome(
        metrics=metrics,
        sparsity=realised(parts, active, masking, ledger),
        cost=cost,
        data=loaded(parts.data, splits),
    )


_texts: dict[str, Reference] = {}


def kept_texts(parts: Parts, loop: Loop, model: nn.Module, make: Callable[[], Reference]) -> Reference:
    """The texts of the network without rules: the cells of a sweep that differ in rules and loop alone share them."""
    cell, computing = parts.cell, [str(next(model.parameters()).device), torch.get_num_threads()]
    shared = [getattr(loop.options, key) for key in sorted(LoopOptions.model_fields)]
    key = canonical([parts.source, cell.model, cell.dataset, cell.seed, shared, *computing])
    if key not in _texts:
        _texts[key] = make()
    return _texts[key]
