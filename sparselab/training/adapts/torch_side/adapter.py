"""The work of an adapt during a run; by default nothing beside the usual updates. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from sparselab.inputs.data.loader import Source


@dataclass(frozen=True)
class Adapting:
    """The run that an adapter may look at.

    network:   where it trains, with what the adapt has put around it. logits: inputs -> logits (n, classes).
    train:     a pass over the training examples in their order, without augmentation, (inputs, labels) on the network's device.
               ``train(share=True)``: this process's share of them alone.
    head:      names of the parameters of the network's head. classes: that are to be told apart.
    per_epoch: micro-batches of an epoch. steps: updates of the run.
    """

    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    train: Callable[..., Iterator[tuple[Tensor, Tensor]]]
    head: frozenset[str]
    classes: int
    per_epoch: int
    steps: int
    seed: int


class Adapter:
    """Called around the updates of a run; what has to outlast an update is in the network, whose checkpoints have it."""

    def __init__(self, adapting: Adapting):
        self.adapting = adapting

    def source(self, source: Source) -> Source:
        """Return the source of training examples in the place of ``source``: as many, in the same order."""
        return source

    def begin(self, resumed: bool) -> None:
        """Before the first update of this process; the network is as it starts, or as a checkpoint has it."""

    def before_batch(self, index: int) -> None:
        """Micro-batch ``index`` of the run, from 0, is about to be trained on."""

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return logits (n, classes) for the loss. inputs: what :meth:`source` gave, (n, …)."""
        return self.adapting.logits(inputs)

    def trained(self) -> int:
        """Return how many numbers are trained."""
        return sum(parameter.numel() for parameter in self.adapting.network.parameters() if parameter.requires_grad)
