"""The corners of Lightning that nobody promises: this version has them, and they do what the engine takes them for."""

from __future__ import annotations

import re
import signal
from importlib.metadata import version
from pathlib import Path

import torch

from sparselab.training.loop.lightning import (
    CHECKED,
    callback_state,
    pl,
    scaler_of,
    update_of,
    without_signal_handlers,
)

PACKAGE = Path(__file__).resolve().parents[2] / "sparselab"
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counter(pl.Callback):
    """Counts batches, and sees who answers SIGUSR1 and SIGTERM meanwhile."""

    batches, handlers = 0, ()

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.batches += 1
        self.handlers = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)

    def state_dict(self):
        return {"batches": self.batches}


def trained(**options):
    counter = Counter()
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", callbacks=[counter], **QUIET, **options)
    without_signal_handlers(trainer).fit(Line(), torch.utils.data.DataLoader(torch.ones(2, 1)))
    return trainer, counter


def test_the_version_is_one_that_somebody_looked_at():
    found = ".".join(version("pytorch-lightning").split(".")[:2])
    assert found == CHECKED, "run this file's other tests, read training/loop/lightning.py, and raise CHECKED"


def test_signals_stay_with_their_owner():
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    assert trained()[1].handlers == before


def test_a_checkpoint_names_updates_and_callbacks(tmp_path):
    trainer, counter = trained(default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert update_of(checkpoint) == 2
    assert callback_state(checkpoint, counter) == {"batches": 2}


def test_only_16_bits_have_a_scaler():
    for precision in ("32-true", "bf16-mixed"):
        assert scaler_of(pl.Trainer(accelerator="cpu", precision=precision, **QUIET)) is None
    scaler = torch.amp.GradScaler("cpu")
    half = pl.Trainer(accelerator="cpu", plugins=[pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)], **QUIET)
    assert scaler_of(half) is scaler


def test_no_other_file_knows_such_a_corner():
    """Lightning is imported in one place, and nothing of it that begins with an underscore is touched elsewhere."""
    private = re.compile(r"\b(?:trainer|pl)\._\w|^\s*(?:import|from) (?:pytorch_lightning|lightning)", re.MULTILINE)
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if private.search(path.read_text())}
    assert found == {"training/loop/lightning.py"}
