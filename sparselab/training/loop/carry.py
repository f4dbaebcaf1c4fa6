"""The state that a recurrent network takes from one window of a text to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

State = Any
"""Tensors with the batch as second axis, in lists and tuples; None: nothing to go on from."""


class Carry:
    """The states that each micro-batch of a batch left, for the one in the same place of the next batch, cut from its history.

    places: micro-batches in a batch; each has streams of its own. period: micro-batches until the text begins again,
    in training, where :meth:`begin` announces each.
    """

    def __init__(self, places: int = 1, period: int = 1):
        self.states: list[State] = [None] * places
        self.period = period
        self.at = 0

    def begin(self, index: int) -> None:
        """Micro-batch number ``index`` of the run, from 0, comes next."""
        places = len(self.states)
        self.at = index % places
        if index % self.period < places:
            self.states[self.at] = None

    def take(self, device: torch.device) -> State:
        """Return the state that the micro-batch starts from."""
        return mapped(self.states[self.at], lambda tensor: tensor.to(device))

    def put(self, state: State) -> None:
        """Keep the state that the micro-batch left."""
        self.states[self.at] = mapped(state, Tensor.detach)

    def whole(self) -> list[State]:
        """For a checkpoint: the states of all processes' streams. Collective."""
        return [mapped(state, _gathered) for state in self.states]

    def restore(self, states: list[State]) -> None:
        """This process's part of what :meth:`whole` gave, whatever the number of processes was then."""
        self.states = [mapped(state, _mine) for state in states]


def mapped(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """``state`` with every tensor changed."""
    if isinstance(state, (list, tuple)):
        return type(state)(mapped(part, change) for part in state)
    return state if state is None else change(state)


def _many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gathered(tensor: Tensor) -> Tensor:
    """All processes' rows, in their order; sent as bytes, because not every backend knows bfloat16."""
    if not _many():
        return tensor
    mine = tensor.contiguous().view(torch.uint8)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat([part.view(tensor.dtype) for part in parts], 1)


def _mine(tensor: Tensor) -> Tensor:
    return tensor.chunk(dist.get_world_size(), 1)[dist.get_rank()] if _many() else tensor
