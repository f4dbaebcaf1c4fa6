"""The process, the data and the network of a run."""

from __future__ import annotations

import os
import sys
import warnings

from sparselab.training.parts import Parts


def wants_channels_last(parts: Parts) -> bool:
    """As asked; ``auto`` for networks of convolutions (ResNet-20 on two cores: 0.41 s an update against 0.55)."""
    asked = parts.cell.trainer.channels_last
    assert parts.model_spec is not None
    convolutions = sum(layer.kind == "conv" for layer in parts.model_spec.layers)
    return convolutions > len(parts.model_spec.layers) / 2 if asked == "auto" else asked


def _quiet() -> None:
    """Lightning's banners and tips say nothing about the cell; errors still come through."""
    import logging

    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stderr.flush()
