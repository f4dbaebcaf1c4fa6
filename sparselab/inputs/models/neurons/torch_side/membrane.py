"""The membrane of a layer of neurons, step by step. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""Of each unit what a step leaves for the next: (n, units) each, the membrane potential first."""


class Membrane(nn.Module):
    """Currents (n, t, …) to spikes of the same shape, in float32 whatever the precision around it.

    State begins at 0 in every pass. ``hard``: spikes are 0 or 1 and, backward, have the slope of the soft ones.
    """

    hard = False
    hardened = False  # in a trial with hard spikes, whatever the neuron is

    def forward(self, currents: Tensor) -> Tensor:
        shape = currents.shape
        flat = currents.flatten(2).to(torch.promote_types(currents.dtype, torch.float32))
        state, spikes = self.begin(flat[:, 0]), []
        for current in flat.unbind(1):
            spike, state = self.step(current, state)
            spikes.append(spike)
        return torch.stack(spikes, 1).view(shape)

    def begin(self, current: Tensor) -> State:
        """The state before the first step: zeros (n, units), as ``current``."""
        return (torch.zeros_like(current),)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one time step.

        Args:
            current: (n, units) float
            state: what :meth:`begin` or the step before gave

        Returns:
            (spikes (n, units) from 0 to 1, the state after the reset).
        """
        raise NotImplementedError

    def emitted(self, soft: Tensor, above: Tensor) -> Tensor:
        """Spikes (n, units): ``soft`` ones, or hard ones with their slope. above: (n, units) potential less threshold."""
        if self.hardened:
            return (above >= 0).to(soft.dtype)
        return (above >= 0).to(soft.dtype) + (soft - soft.detach()) if self.hard else soft

    def numbers(self) -> dict[str, float]:
        """Trained scalars by name, as they are now."""
        found = {name: module() for name, module in self.named_children() if getattr(module, "raw", None) is not None}
        return {name: float(value) for name, value in found.items()}


@contextmanager
def hardened(network: nn.Module) -> Iterator[None]:
    """Inside, every neuron of ``network`` spikes 0 or 1, where its soft spike is below or from one half."""
    membranes = [module for module in network.modules() if isinstance(module, Membrane)]
    for membrane in membranes:
        membrane.hardened = True
    try:
        yield
    finally:
        for membrane in membranes:
            membrane.hardened = False
