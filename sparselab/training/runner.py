"""From a plan to a record: build, fit, score, export."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.inputs.models.trace import traced
from sparselab.running.loggers.logger import Guarded
from sparselab.running.signals import StopFlag
from sparselab.storage.atomic import sweep
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.build import _quiet, wants_channels_last
from sparselab.training.calibrate import calibration
from sparselab.training.conclude import conclude
from sparselab.training.editing import make_edit
from sparselab.training.layers import place_masks
from sparselab.training.loop.batchnorm import check_values, synchronise
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.ema import EMA
from sparselab.training.loop.keeping import Keeper
from sparselab.training.loop.loader import RunLoader
from sparselab.training.loop.loop import Loop, check_masks_agree, many_ranks
from sparselab.training.loop.module import TaskModule
from sparselab.training.loop.spread import Spread
from sparselab.training.loop.stopping import Agreement, Saver
from sparselab.training.loop.store_io import ELSEWHERE, StoreIO, bit_facts, check_content, resumed
from sparselab.training.loop.watch import History, Progress
from sparselab.training.merging import merge_parents
from sparselab.training.parts import Parts
from sparselab.training.precision import check_network
from sparselab.training.probing import make_probe
from sparselab.training.slots import make_sparsifier, targeted
from sparselab.training.trainer import make_trainer
from sparselab.weights.capabilities import ReadsInputs
from sparselab.weights.kernels import native
from sparselab.weights.sparsifier import Sparsifier

if TYPE_CHECKING:
    from sparselab.running.engine import Plan

OPTIMIZER_COPIES = 4  # weights, two moments, a master: what a checkpoint holds at most, in copies of the network


@dataclass
class Finished:
    """The results of a run, for its record."""

    task: TaskModule
    sparsifier: Sparsifier
    metrics: dict[str, float]
    seconds: float
    fit_seconds: float  # of the edit and the updates alone, in this process: of the processor, on a GPU of the wall
    pace: tuple[int, float]  # updates after the first one of this process, and the seconds of the wall that they took
    resumed_from: int | None
    folder: Path
    state: dict[str, torch.Tensor]
    content: str  # of the data that was really loaded
    elsewhere: str  # what was different where a part of it was computed; empty where nothing was


def execute(plan: Plan, flag: StopFlag | None = None) -> Finished:
    """Train the cell of ``plan`` to its end, from its last checkpoint where there is one.

    flag: asks the run to stop, at any time. Where several processes run the cell, each of them calls this.
    Raises ConfigError (before training), RunFailed (NaN, disk, disagreement), Stopped (resumable).
    """
    began = time.monotonic()
    parts: Parts = plan.parts
    options = parts.cell.trainer
    flag = StopFlag() if flag is None else flag  # a flag that is not set is false
    _quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = Path(plan.folder)
    with flag.at_once("while the data was loaded"):
        splits = parts.dataset.load()
    torch.manual_seed(derive_seed(parts.cell.seed, "init"))
    network = parts.family.build(parts.data)
    check_network(network, options)
    if parts.model_spec is None:
        place_masks(parts, traced(parts.family, network, parts.data))
        if parts.steps:
            check_values(network, parts.data, options.batch_size // options.accumulate)

    checkpoints = Checkpoints(folder / "checkpoints", plan.id)
    checkpoints.need_space(OPTIMIZER_COPIES * sum(p.numel() * p.element_size() for p in network.parameters()))
    found = checkpoints.load_latest()
    if found is not None:
        check_content(found, splits.content, parts.dataset.where)
    store = StoreIO(checkpoints, found)
    trainer = make_trainer(parts, folder, store)
    device, rank, world = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
    store.facts, line = resumed(found, {**bit_facts(options.devices, device), "data": splits.content})
    if rank == 0:
        sweep(folder)
        checkpoints.sweep()
        if line:
            print(line, file=sys.stderr)

    network.to(device)  # before the slots, whose masks and masters lie where their weights do
    if wants_channels_last(parts):
        network.to(memory_format=torch.channels_last)
    if found is None:
        merge_parents(parts, network, splits, trainer.precision_plugin, device)
    sparsifier = make_sparsifier(parts, network)
    sparsifier.track = options.track_masks
    if sparsifier.slots and device.type == "cpu" and native.library() is None and rank == 0:
        print(f"masks: {native.status()}; a C compiler would make them several times faster", file=sys.stderr)
    ema = EMA(network, sparsifier, options.ema) if options.ema else None
    task = TaskModule(parts.task, network, parts.family, parts.data, parts.optim, parts.losses, parts.steps)
    task.beside = sparsifier.groups()
    task.bytes_per_token = getattr(splits, "bytes_per_token", {})
    loaders = {
        part: splits.loader(
            part, options.batch_size, parts.cell.seed,
            rank=rank, world=world, device=str(device), workers=options.workers,
        )
        for part in ("train", "val", "test", *getattr(splits, "others", ()))
    }  # fmt: skip
    train_loader, val_loader = loaders.pop("train"), loaders.pop("val")
    if parts.family.carries:
        task.carry = Carry(options.accumulate, len(train_loader) * options.accumulate)
    if isinstance(parts.method, ReadsInputs):
        sparsifier.inputs = calibration(parts, network, sparsifier, splits, device).moments
    precision = trainer.precision_plugin
    agreement = Agreement()
    history = History(
        folder / "metrics.csv", val_loader, options.evals, parts.steps, precision, ema,
        [Guarded(parts.logger, plan)] if rank == 0 else [],
    )  # fmt: skip
    progress = Progress(parts.steps, history, options.progress)
    saver = Saver(flag, options.checkpoint_minutes, options.checkpoint_every, agreement)
    probe = make_probe(parts, task, splits, device)
    edit = make_edit(parts, network, sparsifier, splits, device)
    spread = Spread(targeted(parts, network), parts.steps) if options.track_masks else None
    keeper = Keeper(folder, parts.kept_at)
    loop = Loop(sparsifier, parts.cell.seed, [history, progress, keeper, saver], ema, probe, edit, spread, keeper.begin)
    trainer.callbacks.append(loop)
    if world > 1:
        synchronise(network)
    if options.compile:
        network.compile()  # in place: no wrapper that would put every tensor into checkpoints twice
    sparsifier.on_mask_change = lambda: check_masks_agree(sparsifier, trainer.global_step)
    if options.track_masks and ema is None and len(val_loader):
        sparsifier.on_last_cut = lambda: history.before_cut(loop)
    loader = RunLoader(train_loader, parts.steps, options.accumulate)
    if found is not None:
        loader.start = found.state["callbacks"][loop.state_key]["batches"]
    clock = time.process_time if device.type == "cpu" else time.monotonic  # other jobs on the same cores do not count
    fitting = fitted = clock()
    try:
        flag.check("before an update")
        trainer.fit(task, loader, ckpt_path=str(found.path) if found else None, weights_only=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fitted = clock()
        task.to(device)
        metrics, state = conclude(parts, loop, history, splits, loaders, flag, agreement)
    except FloatingPointError as error:
        raise RunFailed(f"update {trainer.global_step + 1:,}: {error}; the last good checkpoint is kept") from None
    finally:
        progress.close()
        history.close()
    return Finished(
        task,
        sparsifier,
        metrics,
        time.monotonic() - began,
        fitted - fitting,
        progress.pace,
        found.step if found else None,
        folder,
        state,
        splits.content,
        store.facts.get(ELSEWHERE, ""),
    )


def close(plan: Plan) -> None:
    """After the record is written: nothing of the run is needed any more."""
    if many_ranks():
        torch.distributed.barrier()
        rank = torch.distributed.get_rank()
        torch.distributed.destroy_process_group()
        if rank:
            return
    checkpoints = Checkpoints(Path(plan.folder) / "checkpoints", plan.id)
    checkpoints.clear()
    with suppress(OSError):  # not there, or somebody keeps something in it
        checkpoints.folder.rmdir()
