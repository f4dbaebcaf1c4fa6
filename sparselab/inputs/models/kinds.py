"""The model spec's word for a module of a network. Imports torch."""

from __future__ import annotations

from torch import nn


def kind_of(module: nn.Module) -> str | None:
    """``linear``, ``conv``, ``conv1d`` or ``embedding``; None where it is no layer.

    transformers' Conv1D is known by its name, so that asking about an image network does not import transformers.
    """
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "conv"
    known = {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}
    return "conv1d" if "transformers.pytorch_utils.Conv1D" in known else None
