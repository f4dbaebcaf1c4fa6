"""Membranes that add up currents and leak. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselab.inputs.models.neurons.torch_side.membrane import Membrane, State
from sparselab.inputs.models.neurons.torch_side.scalars import Eps, Sharpness, Tau


class Leaky(Membrane):
    """``v <- tau v + I``; a spike by :meth:`soft`; ``v <- v (1 - s)``."""

    def __init__(self, tau: Tau, threshold: float | Tau, beta: float, hard: bool):
        super().__init__()
        self.tau, self.beta, self.hard = tau, beta, hard
        self.threshold = threshold

    def level(self) -> Tensor | float:
        """The threshold."""
        return self.threshold() if isinstance(self.threshold, Tau) else self.threshold

    def soft(self, potential: Tensor, above: Tensor) -> Tensor:
        """Soft spikes of potentials, both (n, units). above: potential less threshold."""
        return torch.sigmoid(self.beta * above)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        potential = self.tau() * state[0] + current
        above = potential - self.level()
        spike = self.emitted(self.soft(potential, above), above)
        return spike, (potential * (1 - spike),)


class Adaptive(Leaky):
    """A threshold that rises with the unit's own spikes; the raise is the second part of the state."""

    def __init__(self, tau: Tau, threshold: float, beta: float, hard: bool, adapt: float, decay: float):
        super().__init__(tau, threshold, beta, hard)
        self.adapt, self.decay = adapt, decay

    def begin(self, current: Tensor) -> State:
        return (torch.zeros_like(current), torch.zeros_like(current))

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        before, raised = state
        potential = self.tau() * before + current
        above = potential - (self.level() + self.adapt * raised)
        spike = self.emitted(self.soft(potential, above), above)
        return spike, (potential * (1 - spike), self.decay * raised + (1 - self.decay) * spike)


class Tanh(Leaky):
    """DSpike's function of trained sharpness in the place of the sigmoid."""

    def __init__(self, tau: Tau, threshold: float, k: float, hard: bool):
        super().__init__(tau, threshold, 1.0, hard)
        self.k = Sharpness(k)

    def soft(self, potential: Tensor, above: Tensor) -> Tensor:
        k = self.k()
        top = torch.tanh(k / 2)
        return ((torch.tanh(k * above / (2 * self.level())) + top) / (2 * top + 1e-8)).clamp(0, 1)


class Tempered(Leaky):
    """A sigmoid of trained temperature: ``sigma((v - theta) / eps)``."""

    def __init__(self, tau: Tau, threshold: float, eps: Eps):
        super().__init__(tau, threshold, 1.0, hard=False)
        self.eps = eps

    def soft(self, potential: Tensor, above: Tensor) -> Tensor:
        return torch.sigmoid(above / self.eps())
