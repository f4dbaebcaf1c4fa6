"""Hidden states: what the blocks of a network put out, without touching the network's code or its output [torch]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class States:
    """Hidden states of one forward pass: the output of each block, and of the norm after the last one if there is one."""

    blocks: list[Tensor]
    normed: Tensor | None = None

    def chosen(self, last: str) -> list[Tensor]:
        """One state per block. ``last`` says which is the last block's: its own (``block``) or the norm's (``normed``)."""
        if last == "block" or self.normed is None:
            return self.blocks
        return [*self.blocks[:-1], self.normed]


class FeatureRecorder:
    """Keeps the hidden states of a network while it is open: ``with recorder: network(x)``, then ``recorder.take()``.

    It hangs on forward hooks, which autocast, DDP and ``compile`` see through. Closed (in evaluation) it keeps nothing.
    """

    def __init__(self, blocks: Sequence[nn.Module], norm: nn.Module | None = None):
        self.depth = len(blocks)
        self.open = False
        self.kept: dict[int, Tensor] = {}
        for index, module in enumerate([*blocks, norm] if norm is not None else blocks):
            module.register_forward_hook(partial(self._keep, index))

    def _keep(self, index: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.open:
            self.kept[index] = output[0] if isinstance(output, tuple) else output

    def __enter__(self) -> FeatureRecorder:
        self.open = True
        return self

    def __exit__(self, *error: object) -> None:
        self.open = False

    def take(self) -> States:
        """The states of the last pass; they are kept no longer."""
        kept, self.kept = self.kept, {}
        return States([kept[i] for i in range(self.depth)], kept.get(self.depth))
