"""How sparse each site is, so that all of them together are as sparse as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselab.inference.activation.frozen.gates import Gate
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.sites import Block, Place, Site
from sparselab.inference.activation.rule import InputRule

GateOf = Callable[[Site, float], Gate | None]


@dataclass(frozen=True)
class Step:
    """A row of the greedy log: sparsity of the whole block, and of each site."""

    effective: float
    levels: dict[str, float]


def effective(places: Iterable[Place], levels: Mapping[str, float]) -> float:
    """The mean of the places' levels, weighted by their parameters."""
    sizes = {place.name: place.params for place in places}
    return sum(size * levels.get(name, 0.0) for name, size in sizes.items()) / sum(sizes.values())


def uniform(blocks: Iterable[Block], target: float) -> dict[str, float]:
    """Every site at the target."""
    return {site.name: target for block in blocks for site in block.sites}


@torch.no_grad()
def greedy(model: torch.nn.Module, block: Block, batches: list[Tensor], rule: InputRule, gate_of: GateOf,
           target: float) -> list[Step]:  # fmt: skip
    """TEAL's greedy allocation in one block (arXiv 2408.14690; arXiv 2505.19427 uses it unchanged).

    From zero, again and again: for every site try ``step`` times its share (a site twice as large as the first one
    takes half a step), run the block on the DENSE network's activations, and keep the site that costs least. The error
    is the norm along the positions of the last ``greedy_last`` of them, averaged over channels, and every window counts
    alike however they are cut into batches. Returns the log, from the dense block to the first row at or beyond ``target``.
    batches: (n, t) int64 token windows.
    """
    calls = block_calls(model, block, batches)
    clean = [_output(block, call) for call in calls]
    first = block.sites[0].params
    steps = {site.name: rule.options.greedy_step * first / site.params for site in block.sites}
    masking = Masking(rule, block.sites, {}, rule.options.dense_prefix)
    levels = dict.fromkeys(steps, 0.0)
    log = [Step(0.0, dict(levels))]
    with masking:
        while log[-1].effective < target - 1e-9:
            trials = {}
            for site in block.sites:
                level = levels[site.name] + steps[site.name]
                if level > 1 + 1e-9:
                    continue
                former = masking.gates.get(site.name)
                _set(masking, site, gate_of(site, min(level, 1.0)))
                trials[site.name] = _error(block, calls, clean, rule.options.greedy_last)
                _set(masking, site, former)
            if not trials:
                break
            best = min(trials, key=lambda name: trials[name])
            levels[best] = min(levels[best] + steps[best], 1.0)
            site = next(site for site in block.sites if site.name == best)
            _set(masking, site, gate_of(site, levels[best]))
            log.append(Step(effective(block.sites, levels), dict(levels)))
    return log


def nearest(log: list[Step], target: float) -> Step:
    """The row of the log whose sparsity is nearest to ``target``; of two the sparser one."""
    return min(reversed(log), key=lambda step: abs(step.effective - target))


def block_calls(model: torch.nn.Module, block: Block, batches: list[Tensor]) -> list[tuple[tuple, dict]]:
    """Record the arguments with which the network, as it is, calls the block.

    Args:
        model: the network
        block: one of its blocks
        batches: (n, t) int64 each

    Returns:
        (positional, named) arguments for each batch.
    """
    calls: list[tuple[tuple, dict]] = []
    handle = block.module.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, dict(kwargs))), with_kwargs=True
    )
    try:
        for batch in batches:
            model(input_ids=batch, use_cache=False)
    finally:
        handle.remove()
    return calls


def _set(masking: Masking, site: Site, gate: Gate | None) -> None:
    if gate is None:
        masking.gates.pop(site.name, None)
    else:
        masking.gates[site.name] = gate


def _output(block: Block, call: tuple[tuple, dict]) -> Tensor:
    output = block.module(*call[0], **call[1])
    return output if isinstance(output, Tensor) else output[0]


def _error(block: Block, calls: list[tuple[tuple, dict]], clean: list[Tensor], last: float) -> float:
    total = 0.0
    for call, dense in zip(calls, clean, strict=True):
        first = dense.shape[-2] - max(round(last * dense.shape[-2]), 1)
        total += len(dense) * float((dense - _output(block, call))[..., first:, :].norm(dim=-2).mean())
    return total
