"""A frozen network that a rule is prepared on, and text to calibrate it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A frozen network.

    logits:  (n, t) tokens to (n, t, vocabulary).
    windows: calibration windows as batches, each (n, t) int64, by the purpose that they are drawn for and the windows in
             a batch (None: as many as the engine takes).
    target:  the sparsity asked for, 0 for none.
    check:   stops the run where somebody asked for it; takes where it is, in words.
    held_out: windows of the validation split as batches, inputs and targets, each (n, t) int64.
    """

    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    windows: Callable[[str, int | None], list[Tensor]]
    target: float
    check: Callable[[str], None]
    held_out: Callable[[], list[tuple[Tensor, Tensor]]] = list
