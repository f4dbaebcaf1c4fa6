"""The third step of a run: what acts on the network, and what looks at it, put together."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.seeds import derive_seed
from sparselab.running.loggers.logger import Guarded
from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting
from sparselab.training.build import Built, head_of, place
from sparselab.training.calibrate import calibration
from sparselab.training.editing import make_edit
from sparselab.training.loop.batchnorm import synchronise
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.ema import EMA
from sparselab.training.loop.keeping import Keeper
from sparselab.training.loop.lightning import attach
from sparselab.training.loop.loader import RunLoader
from sparselab.training.loop.loop import Loop, check_masks_agree
from sparselab.training.loop.module import TaskModule
from sparselab.training.loop.reach import Reach
from sparselab.training.loop.spread import Spread
from sparselab.training.loop.stopping import Agreement, Saver
from sparselab.training.loop.watch import History, Progress
from sparselab.training.merging import measure_again, merge_parents
from sparselab.training.parts import Parts
from sparselab.training.probing import make_probe
from sparselab.training.removals.removal import epoch_lengths
from sparselab.training.removals.torch_side.remover import Left, Remover
from sparselab.training.resume import Saved, begin
from sparselab.training.scenarios.torch_side.course import Course
from sparselab.training.scenarios.torch_side.divide import Numbered, Stream
from sparselab.training.searches.torch_side.architect import Searched
from sparselab.training.slots import make_sparsifier, targeted
from sparselab.training.trainer import make_trainer
from sparselab.weights.capabilities import ReadsInputs
from sparselab.weights.kernels import native

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from sparselab.inputs.data.loader import Loader
    from sparselab.running.engine import Plan
    from sparselab.running.signals import StopFlag
    from sparselab.training.loop.lightning import pl
    from sparselab.training.searches.torch_side.architect import Architect
    from sparselab.weights.sparsifier import Sparsifier


@dataclass
class Run:
    """A run that is put together: everything that :func:`sparselab.training.fit.fit` needs.

    loader: the micro-batches of the whole run. scored: loaders of the parts that are scored after it, by name.
    """

    parts: Parts
    splits: Any
    saved: Saved
    trainer: pl.Trainer
    task: TaskModule
    loop: Loop
    history: History
    reach: Reach | None
    progress: Progress
    loader: Stream
    scored: dict[str, Any]
    flag: StopFlag
    agreement: Agreement


def assemble(plan: Plan, built: Built, saved: Saved, flag: StopFlag) -> Run:
    """Place the sparsifier, and put the loop with its observers around the updates.

    Raises ConfigError where parents that are to be merged do not fit each other.
    """
    parts, network, splits = plan.parts, built.network, built.splits
    options, folder = parts.cell.trainer, Path(plan.folder)
    trainer = make_trainer(parts, folder, saved.io)
    device = trainer.strategy.root_device
    begin(saved, plan, built, trainer)
    place(network, parts, device)  # before the slots, whose masks and masters lie where their weights do
    if saved.found is None:
        merge_parents(parts, network, splits, trainer.precision_plugin, device)
    sparsifier = _sparsifier(parts, built, trainer)
    ema = EMA(network, sparsifier, options.ema) if options.ema else None
    loaders = _loaders(parts, splits, trainer)
    train_loader, val_loader = loaders.pop("train"), loaders.pop("val")
    task = _task(parts, built, sparsifier, len(train_loader))
    task.course = _course(parts, splits, trainer) if parts.scenario else None
    if parts.removal is not None and task.course is None:
        train_loader.source = Numbered(Left(train_loader.source), 0)
    if parts.adapt is not None:
        task.adapter = _adapter(parts, built, task, len(train_loader), trainer)
        train_loader.source = task.adapter.source(train_loader.source)
    loader = _stream(parts, [train_loader] if task.course is None else task.course.train)
    if parts.removal is not None:
        task.remover = _remover(parts, loader.runs, device)
    sinks = [Guarded(parts.logger, plan)] if trainer.global_rank == 0 else []
    history = History(
        folder / "metrics.csv", val_loader, options.evals, parts.steps, trainer.precision_plugin, ema, sinks
    )
    progress, keeper, agreement = (
        Progress(parts.steps, history, options.progress),
        Keeper(folder, parts.kept_at),
        Agreement(),
    )
    reach = None
    if options.reach is not None:
        higher = parts.task.better == "higher"
        reach = Reach(
            val_loader, options.reach, options.reach_every, parts.steps, higher, trainer.precision_plugin, ema
        )
    saver = Saver(flag, options.checkpoint_minutes, options.checkpoint_every, agreement)
    prox = parts.optim.prox
    if prox:
        prox.attach(targeted(parts, network))
    edit = make_edit(parts, network, sparsifier, splits, device)

    def change() -> None:
        """Change the network as is asked for between its first masks and its first update."""
        if parts.merge is not None and parts.merge.options.masks == "any":  # these masks are not the parents'
            measure_again(parts, network, splits, device)
        edit()

    loop = Loop(
        sparsifier,
        parts.cell.seed,
        [history, progress, keeper, saver, *([reach] if reach else [])],
        ema,
        make_probe(parts, task, splits, device),
        change,
        Spread([*targeted(parts, network).values()], parts.steps) if options.track_masks else None,
        keeper.begin,
        prox,
        task.course,
        task.remover,
        _architect(parts, task, sparsifier, splits, trainer) if parts.search else None,
    )
    attach(trainer, loop)
    if trainer.world_size > 1:
        synchronise(network)
    if options.compile:
        network.compile()  # in place: no wrapper that would put every tensor into checkpoints twice
    sparsifier.on_mask_change = lambda: check_masks_agree(sparsifier, trainer.global_step)
    if options.track_masks and ema is None and len(val_loader):
        sparsifier.on_last_cut = lambda: history.before_cut(loop)
    loader.start = saved.batches(loop)
    return Run(parts, splits, saved, trainer, task, loop, history, reach, progress, loader, loaders, flag, agreement)


def _sparsifier(parts: Parts, built: Built, trainer: pl.Trainer) -> Sparsifier:
    """The sparsifier, with a line where a missing C compiler makes it slow."""
    device = trainer.strategy.root_device
    sparsifier = make_sparsifier(parts, built.network)
    sparsifier.track = parts.cell.trainer.track_masks
    if sparsifier.slots and device.type == "cpu" and native.library() is None and trainer.global_rank == 0:
        print(f"masks: {native.status()}; a C compiler would make them several times faster", file=sys.stderr)
    if isinstance(parts.method, ReadsInputs):
        sparsifier.inputs = calibration(parts, parts.method, built.network, sparsifier, built.splits, device).moments
    if isinstance(parts.distribution, ReadsInputs):
        sparsifier.judged_inputs = calibration(
            parts, parts.distribution, built.network, sparsifier, built.splits, device
        ).moments
    return sparsifier


def _task(parts: Parts, built: Built, sparsifier: Sparsifier, batches: int) -> TaskModule:
    """The task at work. batches: of an epoch."""
    task = TaskModule(parts.task, built.network, parts.family, parts.data, parts.optim, parts.losses, parts.steps)
    task.beside, task.sparsifier = sparsifier.groups(), sparsifier
    task.bytes_per_token = getattr(built.splits, "bytes_per_token", {})
    if parts.family.carries:
        accumulate = parts.cell.trainer.accumulate
        task.carry = Carry(accumulate, batches * accumulate)
    return task


def _course(parts: Parts, splits: Any, trainer: pl.Trainer) -> Course:
    """The course of the cell's scenario: each task's loaders of this rank, with an order and an augmentation of its own."""
    scenario, options, seed = parts.scenario, parts.cell.trainer, parts.cell.seed
    assert scenario is not None
    train: list[Loader] = []
    test: list[Loader] = []
    first = 0
    for task in range(len(scenario.groups)):
        order = derive_seed(seed, "task", task)
        for part, into in (("train", train), ("test", test)):
            loader = splits.loader(
                f"{part} {task}", options.batch_size, order, train=part == "train", rank=trainer.global_rank,
                world=trainer.world_size, device=str(trainer.strategy.root_device), workers=options.workers,
            )  # fmt: skip
            into.append(loader)
        source = train[-1].source if parts.removal is None else Left(train[-1].source)
        train[-1].source = Numbered(source, first)  # type: ignore[assignment]  # batches of three
        first += len(source)
    return Course(scenario, parts.ends, train, test, seed, trainer.precision_plugin)


def _stream(parts: Parts, train: list[Loader]) -> Stream:
    """The micro-batches of the whole run. train: loaders of each task's examples, in order."""
    runs = []
    for loader, first, end in zip(train, parts.begins, parts.ends or (parts.steps,), strict=True):
        lengths = epoch_lengths(len(loader.source), loader.batch_size, parts.removal) if parts.removal else None
        runs.append(RunLoader(loader, end - first, parts.cell.trainer.accumulate, lengths))
    return Stream(runs)


def _remover(parts: Parts, runs: list[RunLoader], device: torch.device) -> Remover:
    """The cell's removal at work."""
    assert parts.removal is not None
    sources: Any = [run.loader.source.source for run in runs]  # type: ignore[attr-defined]  # numbered, and thinned below
    return Remover(parts.removal, sources, runs, parts.cell.seed, device)


def _architect(parts: Parts, task: TaskModule, sparsifier: Sparsifier, splits: Any, trainer: pl.Trainer) -> Architect:
    """The cell's search at work, on batches of the validation split in an order of their own."""
    assert parts.search is not None
    options = parts.cell.trainer
    loader = splits.loader(
        "val", options.batch_size, derive_seed(parts.cell.seed, "search"), train=True, rank=trainer.global_rank,
        world=trainer.world_size, device=str(trainer.strategy.root_device), workers=options.workers,
    )  # fmt: skip
    return parts.search.architect(
        Searched(
            task, parts.family.choices(task.network), [*targeted(parts, task.network).values()], sparsifier,
            RunLoader(loader, parts.steps, 1), trainer.precision_plugin,
        )
    )  # fmt: skip


def _adapter(parts: Parts, built: Built, task: TaskModule, batches: int, trainer: pl.Trainer) -> Adapter:
    """The work of the cell's adapt during the run. batches: of an epoch."""
    assert parts.adapt is not None
    options, device = parts.cell.trainer, trainer.strategy.root_device

    def train(share: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        rank, world = (trainer.global_rank, trainer.world_size) if share else (0, 1)
        loader = built.splits.loader(
            "train", options.batch_size, parts.cell.seed, train=False, rank=rank, world=world, device=str(device),
            workers=options.workers,
        )  # fmt: skip
        for batch in loader:
            inputs, labels = parts.task.batch(tuple(part.to(device) for part in batch))[:2]
            yield inputs, labels

    task.freezes = parts.adapt.freezes
    return parts.adapt.adapter(
        Adapting(
            built.network, task.logits, train, head_of(parts), parts.data.classes, batches * options.accumulate,
            parts.steps, parts.cell.seed,
        )
    )  # fmt: skip


def _loaders(parts: Parts, splits: Any, trainer: pl.Trainer) -> dict[str, Any]:
    """This rank's loader of every part of the data, by name."""
    options = parts.cell.trainer
    return {
        part: splits.loader(
            part, options.batch_size, parts.cell.seed, rank=trainer.global_rank, world=trainer.world_size,
            device=str(trainer.strategy.root_device), workers=options.workers,
        )
        for part in ("train", "val", "test", *(() if parts.scenario else getattr(splits, "others", ())))
    }  # fmt: skip
