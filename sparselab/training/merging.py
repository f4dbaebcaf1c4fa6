"""The network that a cell with several parents starts from: parents are read, compared, merged, and measured again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sparselab.core.errors import refuse
from sparselab.core.seeds import derive_seed
from sparselab.inputs.models.weights import place
from sparselab.storage.export import MASKS, MODEL
from sparselab.storage.tensors import load_masks
from sparselab.training.checks import ONE_MASK, OTHER_MASK
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.module import TaskModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from sparselab.training.merges.merge import State
    from sparselab.training.parts import Parts


@torch.no_grad()
def merge_parents(parts: Parts, network: nn.Module, splits: Any, precision: Any, device: torch.device) -> None:
    """Give ``network`` the merged weights of the cell's parents; nothing where it has one or none.

    Raises ConfigError where a parent's shapes or its mask are not those of the others.
    """
    if parts.merge is None:
        return
    states: list[State] = []
    for path in parts.parents:
        parts.family.load(network, path)
        states.append({name: tensor.detach().clone() for name, tensor in network.state_dict().items()})
    if parts.merge.options.masks == "one":
        one_mask(parts.parents, states)
    options = parts.cell.trainer

    def fill(state: State) -> None:
        network.load_state_dict(state)
        measure_again(parts, network, splits, device)

    def score(state: State) -> float:
        fill(state)
        task = TaskModule(parts.task, network, parts.family, parts.data, parts.optim, [], parts.steps)
        task.bytes_per_token = getattr(splits, "bytes_per_token", {})
        task.carry = Carry() if parts.family.carries else None
        loader = splits.loader("val", options.batch_size, parts.cell.seed, device=str(device), workers=options.workers)
        value = evaluate(task, loader, "val", precision)[task.headline]
        return value if parts.task.better == "higher" else -value

    fill(parts.merge.merge(states, score))


@torch.no_grad()
def measure_again(parts: Parts, network: nn.Module, splits: Any, device: torch.device) -> None:
    """Measure batch normalisation again as the cell's merge says: nothing where it has none, or says nothing of it."""
    merge, trainer = parts.merge, parts.cell.trainer
    asked = merge.options if merge else None
    if merge is None or asked is None or not (asked.recalibrate or asked.recalibrate_share):
        return
    size = min(asked.recalibrate or trainer.batch_size, trainer.batch_size)
    seed = derive_seed(parts.cell.seed, "recalibration")
    loader = splits.loader("train", size, seed, device=str(device), workers=trainer.workers)
    loader.position(0, 0)
    count = merge.batches(len(loader.source), trainer.batch_size)
    batches = (batch[0].to(device) for batch in islice(loader, count))
    with torch.autocast(device.type, enabled=False):  # a merged network is measured so, too, before its run begins
        recalibrate(network, parts.family.logits, batches, asked.momentum)


@torch.no_grad()
def parents_again(parts: Parts, splits: Any, device: torch.device) -> Iterator[nn.Module]:
    """Each parent of a merged network by itself, in evaluation mode, measured again as the merged one was.

    It is one module with other weights each time: done with before the next one is asked for.
    """
    network = parts.family.build(parts.data).to(device)
    for path in parts.parents:
        parts.family.load(network, path)
        measure_again(parts, network, splits, device)
        yield network.eval()


def one_mask(paths: Sequence[str], states: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse parents whose masks differ: those beside the files where all have them, else the zeros of their matrices.

    Args:
        paths: the parents' files
        states: their tensors by name

    Raises:
        ConfigError: their masks differ.
    """
    beside = [Path(path).parent / MASKS for path in paths]
    whole = all(Path(path).name == MODEL and file.is_file() for path, file in zip(paths, beside, strict=True))
    masks = [load_masks(file) for file in beside] if whole else list(map(zeros, states))
    for path, mask in zip(paths[1:], masks[1:], strict=True):
        if mask.keys() != masks[0].keys() or any(not torch.equal(mask[name], masks[0][name]) for name in mask):
            refuse(place(path), OTHER_MASK, ONE_MASK)


def zeros(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks of a network that says none.

    Args:
        state: tensors by name

    Returns:
        (*weight) bool by name, True where a matrix is not zero.
    """
    return {name: tensor != 0 for name, tensor in state.items() if tensor.ndim > 1 and tensor.is_floating_point()}


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    logits: Callable[[nn.Module, Tensor], Tensor],
    batches: Iterable[Tensor],
    momentum: float | None = None,
) -> None:
    """Measure mean and variance of each batch normalisation again, as plain means over ``batches`` of equal size.

    The averages that several networks gathered are not those of their mean (Jordan et al. 2023, arXiv 2211.08403). Nothing
    else of the network is in training mode.

    Args:
        network: changed in place
        logits: one forward pass of a batch
        batches: inputs (n, *inputs), all of one size
        momentum: of a moving average in the place of the plain mean, which keeps (1 - momentum)^B of mean 0 and variance 1
            after B batches

    Raises:
        ConfigError: it has no batch normalisation.
    """
    modules = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not modules:
        refuse("merge.recalibrate", "the network has no batch normalisation", "write merge.recalibrate=0")
    was_training, momenta = network.training, [module.momentum for module in modules]
    network.eval()
    for module in modules:
        module.reset_running_stats()
        module.momentum = momentum  # None is a plain mean
        module.train()
    for batch in batches:
        logits(network, batch)
    for module, momentum in zip(modules, momenta, strict=True):
        module.momentum = momentum
    network.train(was_training)


__all__ = ["measure_again", "merge_parents", "one_mask", "parents_again", "recalibrate"]
