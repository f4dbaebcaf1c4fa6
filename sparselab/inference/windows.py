"""Windows of tokens to calibrate on and to score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sparselab.inputs.data.seeds import generator

Batch = tuple[Tensor, Tensor]


def draw(
    tokens: Tensor, length: int, count: int | None, seed: int, purpose: str, stride: int | None = None
) -> np.ndarray:
    """Draw windows with targets, one every ``stride`` tokens from the text's beginning; all of them where fewer fit.

    Args:
        tokens: (n,) integers
        length: tokens of a window
        count: how many windows; None: all
        seed: the cell's
        purpose: another word is another draw
        stride: tokens from one window to the next; None: ``length``, so that they stand side by side

    Returns:
        (windows,) int64 starts, ascending.
    """
    step = stride or length
    fit = max((len(tokens) - 1 - length) // step + 1, 0)
    if count is None or count >= fit:
        return np.arange(fit) * step
    return np.sort(generator(purpose, seed).permutation(fit)[:count]) * step


def batches(tokens: Tensor, starts: np.ndarray, length: int, size: int, device: torch.device) -> Iterator[Batch]:
    """Read windows in batches.

    Args:
        tokens: (n,) integers
        starts: (windows,) int64
        length: tokens of a window
        size: windows in a batch, at most
        device: of what is returned

    Returns:
        (inputs, targets) again and again, each (up to size, length) int64; targets are the inputs one token on.
    """
    offsets = torch.arange(length + 1)
    for first in range(0, len(starts), size):
        at = torch.from_numpy(starts[first : first + size])[:, None] + offsets
        window = tokens[at].long().to(device)
        yield window[:, :-1], window[:, 1:]
