"""After the last update: the finished network is checked, scored and copied."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.errors import RunFailed, Stopped
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.loader import Interruptible
from sparselab.training.loop.loop import check_masks_agree
from sparselab.training.measure import measure
from sparselab.training.merging import parents_again
from sparselab.training.parts import Parts
from sparselab.training.slots import targeted
from sparselab.weights.capabilities import Reports, by_chance, finds_counts
from sparselab.weights.count import chance_miss
from sparselab.weights.sparsifier import Sparsifier

if TYPE_CHECKING:
    from sparselab.training.assemble import Run


def conclude(run: Run) -> tuple[dict[str, float], dict[str, torch.Tensor], dict[str, bytes]]:
    """After the last update: check the pattern, score the test split. Returns metrics, the network's tensors and pictures.

    Stopped here, the run is saved first: what is left to do is the test.
    """
    parts, loop, flag = run.parts, run.loop, run.flag

    def check() -> None:
        if run.agreement.any(bool(flag))[0]:
            raise Stopped(
                f"{flag.name or 'another rank'}: stopped during the test — the same command goes on from there"
            )

    loop.sparsifier.finish()
    check_masks_agree(loop.sparsifier, parts.steps)
    try:
        with loop.ema.applied() if loop.ema else nullcontext():
            check_pattern(parts, loop.sparsifier, run.task.network)
            loaders = {part: Interruptible(loader, check) for part, loader in run.scored.items()}
            precision = run.trainer.precision_plugin
            course = run.task.course  # which has scored each task already
            scores = course.scores() if course else evaluate(run.task, loaders["test"], "test", precision)
            weights, masks = targeted(parts, run.task.network), loop.sparsifier.masks()
            device = run.trainer.strategy.root_device
            parents = partial(parents_again, parts, run.splits, device)
            more, pictures = measure(parts.metrics, run.task, loaders, run.splits, precision, weights, masks, parents)
            scores |= more
            state = snapshot(run.task.network)
    except Stopped:
        run.trainer.save_checkpoint(f"step-{parts.steps}")
        raise
    metrics = {f"test.{name}": value for name, value in scores.items()}
    metrics |= run.history.last_loss()
    metrics |= {f"train.{name}": value for name, value in _told(run).items()}
    metrics |= {"train.params_trained": float(run.task.adapter.trained())} if run.task.adapter else {}
    metrics |= loop.spread.metrics() if loop.spread else {}
    metrics |= run.reach.metrics() if run.reach else {}
    run.history.conclude({"step": parts.steps, **metrics})
    if run.history.rows:
        metrics |= {name: value for name, value in run.history.rows[-1].items() if name.startswith("val.")}
    metrics |= run.history.cut(loop)
    return metrics, state, pictures


def _told(run: Run) -> dict[str, float]:
    """Numbers about the run that its sparsifier and its method tell."""
    sparsifier, method = run.loop.sparsifier, run.parts.method
    told = sparsifier.divergence() | sparsifier.softness()
    if run.loop.prox:
        told |= run.loop.prox.measures()
    if run.loop.remover:
        told |= run.loop.remover.measures()
    if run.task.cut is not None:
        told["relative_drop"] = run.task.cut
    return told | method.measures(sparsifier.slots) if isinstance(method, Reports) else told


def snapshot(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's tensors on the CPU, copied; tied tensors stay one."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    state = {}
    for name, tensor in network.state_dict().items():
        same = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        if tensor.numel() == 0 or same not in copies:
            copies[same] = tensor.detach().cpu().clone()
        state[name] = copies[same]
    return state


@torch.no_grad()
def check_pattern(parts: Parts, sparsifier: Sparsifier, network: torch.nn.Module) -> None:
    """The finished network is what was asked for: every group, every count, every zero. A miss fails the cell.

    Where each weight is kept by itself (``by_chance``) the request is a mean, and a total further from it than chance
    explains is a miss; each layer's count has to be the one that was drawn. Where the method finds the counts
    (``finds_counts``) the request is no total.
    """
    total = kept = 0
    for slot in sparsifier.slots:
        asked = parts.pattern_of(slot.layer.name)
        if slot.pattern.sparsity != asked or not slot.pattern.holds(slot.mask):
            raise RunFailed(f"{slot.name}: the finished mask breaks {asked} — please report this")
        if bool((slot.param[~slot.mask] != 0).any()):
            raise RunFailed(f"{slot.name}: pruned weights of the finished network are not zero — please report this")
        count = int(slot.mask.sum())
        if count != slot.kept:
            raise RunFailed(
                f"{slot.name}: {count:,} weights are kept, {slot.kept:,} when the mask was made — please report this"
            )
        total, kept = total + slot.mask.numel(), kept + count
    want = sum(parts.kept[slot.layer.name] for slot in sparsifier.slots)
    if sparsifier.slots and not finds_counts(parts.method) and abs(kept - want) > _leeway(parts, sparsifier):
        raise RunFailed(f"sparsity: {kept:,} of {total:,} weights are kept, {want:,} were asked for — see schedule")


def _leeway(parts: Parts, sparsifier: Sparsifier) -> float:
    """Return the weights by which the total may miss the request.

    One unit of each layer that has blocks or channels, or what chance explains; else none.
    """
    if by_chance(parts.method):
        return chance_miss((parts.kept[slot.layer.name], slot.mask.numel()) for slot in sparsifier.slots)
    units = (slot.mask.numel() // slot.pattern.units(slot.mask.shape) for slot in sparsifier.slots)
    return sum(unit for unit in units if unit > 1)
