"""An exponential moving average of the sparse network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sparselab.weights.sparsifier import Sparsifier


class EMA:
    """Averages what the network computes with, parameters and buffers; what is read is projected on the current masks.

    Without the projection an average over moving masks is denser than any of its members.
    """

    def __init__(self, network: torch.nn.Module, sparsifier: Sparsifier, decay: float):
        self.network = network
        self.sparsifier = sparsifier
        self.decay = decay
        self.shadow: dict[str, torch.Tensor] = {}

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}

    @torch.no_grad()
    def start(self) -> None:
        self.shadow = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def update(self) -> None:
        live = self._tensors()
        floats = [name for name, tensor in live.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.shadow[n] for n in floats], [live[n].detach() for n in floats], 1 - self.decay)
        for name in live.keys() - floats:
            self.shadow[name].copy_(live[name])

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Inside, the network holds the averaged weights, sparse as its masks say; afterwards its own again."""
        masks = {id(slot.param): slot.mask for slot in self.sparsifier.slots}  # a tied tensor has several names
        live = self._tensors()
        own = {name: tensor.detach().clone() for name, tensor in live.items()}
        for name, tensor in live.items():
            mask = masks.get(id(tensor))
            tensor.data.copy_(self.shadow[name] if mask is None else self.shadow[name] * mask)
        self.sparsifier.units.silence()
        try:
            yield
        finally:
            for name, tensor in live.items():
                tensor.data.copy_(own[name])

    def state(self) -> dict[str, Any]:
        return dict(self.shadow)

    def load(self, state: dict[str, Any]) -> None:
        live = self._tensors()
        self.shadow = {name: tensor.to(live[name].device).clone() for name, tensor in state.items()}
