"""From a plan to a record: build, fit, score, export."""

from __future__ import annotations

import os
import sys
import time
import warnings
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.errors import RunFailed, Stopped
from sparselab.core.model_spec import EXPERTS
from sparselab.core.seeds import derive_seed
from sparselab.inputs.data.splits import loaded
from sparselab.inputs.models.trace import traced
from sparselab.running.loggers.logger import Guarded
from sparselab.running.signals import StopFlag
from sparselab.storage.atomic import sweep
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.calibrate import calibration
from sparselab.training.editing import make_edit
from sparselab.training.given_masks import given_masks
from sparselab.training.layers import place_masks
from sparselab.training.loop.batchnorm import check_values, synchronise
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.ema import EMA
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.keeping import Keeper
from sparselab.training.loop.lazy_lightning import environments, pl
from sparselab.training.loop.loader import Interruptible, RunLoader
from sparselab.training.loop.loop import Loop, check_masks_agree, many_ranks
from sparselab.training.loop.module import TaskModule
from sparselab.training.loop.spread import Spread
from sparselab.training.loop.stopping import Agreement, Saver
from sparselab.training.loop.store_io import ELSEWHERE, StoreIO, bit_facts, check_content, resumed
from sparselab.training.loop.watch import History, Progress
from sparselab.training.measure import measure
from sparselab.training.merging import merge_parents
from sparselab.training.parts import Parts
from sparselab.training.precision import check_network
from sparselab.weights.capabilities import ReadsInputs, Reports, by_chance
from sparselab.weights.count import chance_miss
from sparselab.weights.kernels import native
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.probe import Probe
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier
from sparselab.weights.targets import select

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
    data: dict[str, Any]  # what was really loaded, for the record
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
        loaded(parts.data, splits),
        store.facts.get(ELSEWHERE, ""),
    )


def conclude(
    parts: Parts,
    loop: Loop,
    history: History,
    splits: Any,
    loaders: dict[str, Any],
    flag: StopFlag,
    agreement: Agreement,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """After the last update: check the pattern, score the test split. Returns metrics and the network's tensors.

    Stopped here, the run is saved first: what is left to do is the test.
    """

    def check() -> None:
        if agreement.any(bool(flag))[0]:
            raise Stopped(
                f"{flag.name or 'another rank'}: stopped during the test — the same command goes on from there"
            )

    loop.sparsifier.finish()
    check_masks_agree(loop.sparsifier, parts.steps)
    try:
        with loop.ema.applied() if loop.ema else nullcontext():
            check_pattern(parts, loop.sparsifier, loop.task.network)
            loaders = {part: Interruptible(loader, check) for part, loader in loaders.items()}
            precision = loop.trainer.precision_plugin
            scores = evaluate(loop.task, loaders["test"], "test", precision)
            scores |= measure(parts.metrics, loop.task, loaders, splits, precision)
            state = snapshot(loop.task.network)
    except Stopped:
        loop.trainer.save_checkpoint(f"step-{parts.steps}")
        raise
    metrics = {f"test.{name}": value for name, value in scores.items()}
    metrics |= history.last_loss()
    told = loop.sparsifier.divergence() | loop.sparsifier.softness()
    if isinstance(parts.method, Reports):
        told |= parts.method.measures(loop.sparsifier.slots)
    metrics |= {f"train.{name}": value for name, value in told.items()}
    metrics |= loop.spread.metrics() if loop.spread else {}
    history.conclude({"step": parts.steps, **metrics})
    if history.rows:
        metrics |= {name: value for name, value in history.rows[-1].items() if name.startswith("val.")}
    metrics |= history.cut(loop)
    return metrics, state


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


def wants_channels_last(parts: Parts) -> bool:
    """As asked; ``auto`` for networks of convolutions (ResNet-20 on two cores: 0.41 s an update against 0.55)."""
    asked = parts.cell.trainer.channels_last
    assert parts.model_spec is not None
    convolutions = sum(layer.kind == "conv" for layer in parts.model_spec.layers)
    return convolutions > len(parts.model_spec.layers) / 2 if asked == "auto" else asked


def make_sparsifier(parts: Parts, network: torch.nn.Module) -> Sparsifier:
    """Slots for the chosen layers (a tied weight gets one), and the counts that the distribution gives them."""
    slots: list[Slot] = []
    seen: set[int] = set()
    for layer in parts.layers:
        param = network.get_parameter(layer.tensor)
        if id(param) in seen:
            continue
        seen.add(id(param))
        # Each expert keeps its share, unless the distribution ranks all weights together.
        apart = layer.groups if layer.kind in EXPERTS and not parts.distribution.needs_scores else 1
        pattern = Pattern.of(parts.pattern_of(layer.name), layer.kind, parts.cell.targets.axis, apart)
        slots.append(Slot(layer, param, pattern, torch.ones_like(param, dtype=torch.bool)))
    if parts.cell.targets.masks is not None:
        given = given_masks(parts, slots)
        counts = parts.kept = {slot.layer.name: int(given[slot.name].sum()) for slot in slots}
        made = Sparsifier(parts.method, slots, parts.schedule, lambda *_: counts, parts.steps, parts.cell.seed)
        made.given = given
        return made
    distribution, density = parts.distribution, parts.sparsity.density
    sizes = {layer.name: layer.numel for layer in parts.layers}

    def allocate(level: float, scores: dict[str, torch.Tensor] | None) -> dict[str, int]:
        kept = {name: size - round(level * (size - parts.kept[name])) for name, size in sizes.items()}
        if scores is not None:
            ranked = {name: score for name, score in scores.items() if name not in parts.exceptions}
            kept |= distribution.allocate_scored(ranked, 1 - level * (1 - density))
        return kept

    ranked = distribution.needs_scores
    return Sparsifier(parts.method, slots, parts.schedule, allocate, parts.steps, parts.cell.seed, ranked)


def make_probe(parts: Parts, task: TaskModule, splits: Any, device: torch.device) -> Probe:
    """Whole batches on every rank, whatever their number: each measures all, and all measure the same."""

    def loss(network: torch.nn.Module, batch: Any, temperature: float) -> torch.Tensor:
        batch = parts.task.batch(tuple(part.to(device) for part in batch))
        return task.criterion(parts.family.logits(network, batch[0]) / temperature, batch)

    def loader() -> Any:
        return iter(splits.loader("train", parts.cell.trainer.batch_size, parts.cell.seed, device=str(device)))

    return Probe(task.network, loss, loader, parts.data.classes, parts.cell.seed)


def targeted(parts: Parts, network: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights that the cell's targets name, of a dense cell too; a tied one once."""
    options = parts.cell.targets
    assert parts.model_spec is not None
    layers = parts.layers or select(parts.model_spec, options.include, options.exclude)
    return list({id(p): p for p in (network.get_parameter(layer.tensor) for layer in layers)}.values())


def make_trainer(parts: Parts, folder: Path, io: StoreIO) -> pl.Trainer:
    """Lightning with everything off that the loop does itself; its signal handlers stay out (one owner of signals)."""
    options = parts.cell.trainer
    plugins: list[Any] = [io]
    cuda = torch.cuda.is_available() and options.accelerator != "cpu"
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[options.precision]
    if options.precision == "16" and not cuda:
        plugins.append(pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu")))
        precision = None
    if options.devices > 1:
        plugins.append(environments.LightningEnvironment())  # what our supervisor gives its ranks, also under Slurm
    trainer = pl.Trainer(
        max_steps=parts.steps,
        max_epochs=-1,
        accumulate_grad_batches=options.accumulate,
        accelerator="gpu" if cuda else "cpu",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        precision=precision,
        gradient_clip_val=options.clip,
        plugins=plugins,
        default_root_dir=folder,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic="warn" if cuda else False,
        benchmark=False,
    )
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


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
    explains is a miss; each layer's count has to be the one that was drawn.
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
    if sparsifier.slots and abs(kept - want) > _leeway(parts, sparsifier):
        raise RunFailed(f"sparsity: {kept:,} of {total:,} weights are kept, {want:,} were asked for — see schedule")


def _leeway(parts: Parts, sparsifier: Sparsifier) -> float:
    """Weights by which the total may miss the request: one unit of each layer that has blocks or channels, or what
    chance explains; else none."""
    if by_chance(parts.method):
        return chance_miss((parts.kept[slot.layer.name], slot.mask.numel()) for slot in sparsifier.slots)
    units = (slot.mask.numel() // slot.pattern.units(slot.mask.shape) for slot in sparsifier.slots)
    return sum(unit for unit in units if unit > 1)


def _quiet() -> None:
    """Lightning's banners and tips say nothing about the cell; errors still come through."""
    import logging

    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stderr.flush()
