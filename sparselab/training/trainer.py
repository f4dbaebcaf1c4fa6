"""Lightning's trainer for a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparselab.training.loop.lightning import environments, pl, without_signal_handlers
from sparselab.training.loop.store_io import StoreIO
from sparselab.training.parts import Parts


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
    return without_signal_handlers(trainer)
