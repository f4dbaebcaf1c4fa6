"""From a plan to a record: build, fit, score, export."""

from __future__ import annotations

import os
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from sparselab.engines.train.ema import EMA
from sparselab.engines.train.evaluate import evaluate
from sparselab.engines.train.feed import RunFeed
from sparselab.engines.train.loop import Loop, check_masks_agree
from sparselab.engines.train.plan import Parts, place_masks
from sparselab.engines.train.stopping import Saver, StopFlag
from sparselab.engines.train.store_io import StoreIO
from sparselab.engines.train.watch import History, Progress
from sparselab.loggers.logger import Guarded
from sparselab.models.trace import trace
from sparselab.sparsity.pattern import Pattern
from sparselab.sparsity.slots import Slot, Sparsifier
from sparselab.spec.address import address
from sparselab.spec.faults import RunFailed
from sparselab.store.checkpoints import Checkpoints
from sparselab.tasks import TASKS

if TYPE_CHECKING:
    from sparselab.engines.engine import Plan
    from sparselab.tasks.task import Task

OPTIMIZER_COPIES = 4  # weights, two moments, a master: what a checkpoint holds at most, in copies of the network


@dataclass
class Finished:
    """What a run leaves for the record."""

    task: Task
    sparsifier: Sparsifier
    metrics: dict[str, float]
    seconds: float
    resumed_from: int | None
    folder: Path
    state: dict[str, torch.Tensor]


def execute(plan: Plan) -> Finished:
    """Train the cell of ``plan`` to its end, from its last checkpoint where there is one.

    Raises Refused (before training), RunFailed (NaN, disk, disagreement), Stopped (a signal; resumable).
    """
    began = time.monotonic()
    parts: Parts = plan.parts
    trainer_options = parts.cell.trainer
    _quiet()
    if trainer_options.threads:
        torch.set_num_threads(trainer_options.threads)
    flag = StopFlag()
    with flag.listening():
        folder = Path(plan.folder)
        splits = parts.dataset.load()
        torch.manual_seed(address(parts.cell.seed, "init"))
        network = parts.family.build(parts.data)
        if parts.outline is None:
            place_masks(parts, trace(network, parts.data))
        sparsifier = make_sparsifier(parts, network)
        ema = EMA(network, sparsifier, trainer_options.ema) if trainer_options.ema else None
        task = TASKS[parts.data.task](network, parts.family, parts.data, parts.optim, parts.terms, parts.steps)
        task.bytes_per_token = getattr(splits, "bytes_per_token", {})

        checkpoints = Checkpoints(folder / "checkpoints", plan.id)
        checkpoints.need_space(OPTIMIZER_COPIES * sum(p.numel() * p.element_size() for p in network.parameters()))
        found = checkpoints.load_latest()
        trainer = make_trainer(parts, folder, StoreIO(checkpoints, found))
        device, rank, world = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
        train_feed, val_feed, test_feed = (
            splits.feed(
                part, trainer_options.batch_size, parts.cell.seed,
                rank=rank, world=world, device=str(device), workers=trainer_options.workers,
            )
            for part in ("train", "val", "test")
        )  # fmt: skip
        precision = trainer.precision_plugin
        history = History(
            folder / "metrics.csv", val_feed, trainer_options.evals, parts.steps, precision, ema,
            [Guarded(parts.logger, plan)] if rank == 0 else [],
        )  # fmt: skip
        progress = Progress(parts.steps, history, trainer_options.progress)
        saver = Saver(flag, trainer_options.checkpoint_minutes, trainer_options.checkpoint_every)
        loop = Loop(sparsifier, parts.cell.seed, [history, progress, saver], ema)
        trainer.callbacks.append(loop)
        if trainer_options.compile:
            task.compiled = torch.compile(network)
        sparsifier.on_mask_change = lambda: check_masks_agree(sparsifier, trainer.global_step)

        feed = RunFeed(train_feed, parts.steps, trainer_options.accumulate)
        if found is not None:
            feed.start = found.state["callbacks"][loop.state_key]["batches"]
        try:
            trainer.fit(task, feed, ckpt_path=str(found.path) if found else None, weights_only=True)
        except FloatingPointError as error:
            raise RunFailed(f"update {trainer.global_step + 1:,}: {error}; the last good checkpoint is kept") from None
        finally:
            progress.close()
            for sink in history.sinks:
                sink.close()
        sparsifier.finish()
        task.to(device)
        with ema.applied() if ema else nullcontext():
            check_pattern(parts, sparsifier, network)
            metrics = {f"test.{k}": v for k, v in evaluate(task, test_feed, "test", precision).items()}
            state = snapshot(network)
        if history.rows:
            metrics |= {k: v for k, v in history.rows[-1].items() if k.startswith("val.")}
        return Finished(
            task, sparsifier, metrics, time.monotonic() - began, found.step if found else None, folder, state
        )


def make_sparsifier(parts: Parts, network: torch.nn.Module) -> Sparsifier:
    """Slots for the chosen layers (a tied weight gets one), and the counts that the distribution gives them."""
    slots: list[Slot] = []
    seen: set[int] = set()
    for layer in parts.layers:
        param = network.get_parameter(layer.tensor)
        if id(param) in seen:
            continue
        seen.add(id(param))
        pattern = Pattern.of(parts.sparsity, layer.kind, parts.cell.targets.axis)
        slots.append(Slot(layer, param, pattern, torch.ones_like(param, dtype=torch.bool)))
    distribution, density = parts.distribution, parts.sparsity.density
    sizes = {layer.name: layer.numel for layer in parts.layers}

    def allocate(level: float, scores: dict[str, torch.Tensor] | None) -> dict[str, int]:
        if scores is not None:
            return distribution.allocate_scored(scores, 1 - level * (1 - density))
        return {name: size - round(level * (size - parts.kept[name])) for name, size in sizes.items()}

    parts.method.scored_allocation = distribution.needs_scores
    return Sparsifier(parts.method, slots, parts.schedule, allocate, parts.steps, parts.cell.seed)


def make_trainer(parts: Parts, folder: Path, io: StoreIO) -> pl.Trainer:
    """Lightning with everything off that the loop does itself; its signal handlers stay out (one owner of signals)."""
    options = parts.cell.trainer
    plugins: list[Any] = [io]
    cuda = torch.cuda.is_available() and options.accelerator != "cpu"
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[options.precision]
    if options.precision == "16" and not cuda:
        from pytorch_lightning.plugins.precision import MixedPrecision

        plugins.append(MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu")))
        precision = None
    if "SLURM_JOB_ID" in os.environ and options.devices > 1:
        from pytorch_lightning.plugins.environments import SLURMEnvironment

        plugins.append(SLURMEnvironment(auto_requeue=False))
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
    """The finished network is what was asked for: every group, every count, every zero. A miss fails the cell."""
    total = kept = 0
    for slot in sparsifier.slots:
        if not slot.pattern.holds(slot.mask):
            raise RunFailed(f"{slot.name}: the finished mask breaks {parts.sparsity} — please report this")
        if bool((slot.param[~slot.mask] != 0).any()):
            raise RunFailed(f"{slot.name}: pruned weights of the finished network are not zero — please report this")
        total, kept = total + slot.mask.numel(), kept + int(slot.mask.sum())
    want = sum(parts.kept[slot.layer.name] for slot in sparsifier.slots)
    coarse = parts.sparsity.kind in ("block", "channel")
    if sparsifier.slots and kept != want and not (coarse and abs(kept - want) <= _coarseness(parts, sparsifier)):
        raise RunFailed(f"sparsity: {kept:,} of {total:,} weights are kept, {want:,} were asked for — see schedule")


def _coarseness(parts: Parts, sparsifier: Sparsifier) -> int:
    """Weights by which whole blocks or channels may miss the request: half a unit a layer, and at least one unit each."""
    return sum(slot.mask.numel() // slot.pattern.units(slot.mask.shape) for slot in sparsifier.slots)


def _quiet() -> None:
    """Lightning's banners and tips say nothing about the cell; errors still come through."""
    import logging

    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stderr.flush()
