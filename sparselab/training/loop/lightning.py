"""Lightning, and every corner of it that its documentation does not promise. Who needs Lightning takes it from here.

Lightning imports torchmetrics, and that loads transformers, matplotlib and scipy wherever they are installed, for metrics
that no run uses: seconds of each start. They are kept out while it is imported.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_utilities.core import imports

CHECKED = "2.6"  # of Lightning: the version whose corners this file knows; a test asks for another look at any other
UNWANTED = {"transformers", "matplotlib", "scipy", "torchvision"}


@contextmanager
def _without_extras() -> Iterator[None]:
    """Inside, who asks whether something UNWANTED is installed hears that it is not. Afterwards all is as it was."""
    requirement_met, package_available = imports.RequirementCache.__bool__, imports.package_available

    def met(cache: imports.RequirementCache) -> bool:
        name = re.split(r"[<>=!~\[ ]", cache.requirement or cache.module or "")[0]
        return name not in UNWANTED and requirement_met(cache)

    def available(name: str) -> bool:
        return name not in UNWANTED and package_available(name)

    imports.RequirementCache.__bool__ = met  # type: ignore[method-assign, assignment]
    imports.package_available = available  # type: ignore[assignment]
    try:
        yield
    finally:
        imports.RequirementCache.__bool__ = requirement_met  # type: ignore[method-assign]
        imports.package_available = package_available


with _without_extras():
    import pytorch_lightning as pl
    import torchmetrics
    from lightning_fabric.plugins import environments


def quiet() -> None:
    """Silence banners and tips, which say nothing about the cell; errors still come through."""
    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")


def without_signal_handlers(trainer: pl.Trainer) -> pl.Trainer:
    """``trainer``, which from now on leaves the process's signals alone: they have one owner, the run."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def attach(trainer: pl.Trainer, callback: pl.Callback) -> None:
    """Add a callback that was made with the trainer at hand."""
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]


def callback_state(checkpoint: Mapping[str, Any], callback: pl.Callback) -> Mapping[str, Any]:
    """The state that a callback wrote into a checkpoint, before Lightning hands it back."""
    state: Mapping[str, Any] = checkpoint["callbacks"][callback.state_key]
    return state


def update_of(checkpoint: Mapping[str, Any]) -> int:
    """The number of optimiser updates before a checkpoint."""
    return int(checkpoint["global_step"])


def scaler_of(trainer: pl.Trainer) -> Any:
    """The gradient scaler of 16-bit training; None in any other precision."""
    return getattr(trainer.precision_plugin, "scaler", None)


__all__ = [
    "CHECKED", "attach", "callback_state", "environments", "pl", "quiet", "scaler_of", "torchmetrics", "update_of",
    "without_signal_handlers",
]  # fmt: skip
