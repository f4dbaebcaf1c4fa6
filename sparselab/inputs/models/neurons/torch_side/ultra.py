"""Membranes of log-sum-exp dynamics (arXiv 2602.11206). Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselab.inputs.models.neurons.torch_side.membrane import Membrane, State
from sparselab.inputs.models.neurons.torch_side.scalars import SCALE, Eps, Positive, Tau


def lse(eps: Tensor | float, *terms: Tensor) -> Tensor:
    """``eps * log(sum of exp(x / eps))``, from the largest to that plus eps times the logarithm of their number.

    Args:
        eps: the temperature, above 0
        terms: tensors of one shape, or that broadcast to it

    Returns:
        That shape. The largest is taken out before an exponential, so that nothing overflows.
    """
    total = terms[0] / eps
    for term in terms[1:]:
        total = torch.logaddexp(total, term / eps)
    return eps * total


class Soft(Membrane):
    """UltraLIF and UltraPLIF: ``m = LSE(v + log tau, I)``, ``s = sigma((m - theta) / eps)``, ``v <- m (1 - s)``."""

    def __init__(self, tau: Tau, threshold: float, eps: Eps, scale: float | None):
        super().__init__()
        self.tau, self.threshold, self.eps = tau, threshold, eps
        self.scale = None if scale is None else Positive(scale, learn=True, bounds=SCALE)

    def spikes(self, potential: Tensor, eps: Tensor | float) -> Tensor:
        """Spikes of ``potential``, both (n, units), at the temperature ``eps``."""
        above = potential - self.threshold
        return self.emitted(torch.sigmoid(above / eps if self.scale is None else self.scale() * above), above)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        eps = self.eps()
        potential = lse(eps, state[0] + self.tau.log(), current)
        spike = self.spikes(potential, eps)
        return spike, (potential * (1 - spike),)


class Ring(Soft):
    """UltraDLIF and UltraDPLIF: each unit with its two neighbours on a ring; the order of the units means something.

    ``leak``: what tau multiplies within the mean: none, centre, all. ``input_first``: leak and current come before the mean,
    which then gives the spike alone, and the reset acts on v.
    """

    def __init__(self, tau: Tau, threshold: float, eps: Eps, scale: float | None, leak: str, input_first: bool):
        super().__init__(tau, threshold, eps, scale)
        self.leak, self.input_first = leak, input_first

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        eps, before = self.eps(), state[0]
        if self.input_first:
            kept = self.tau() * before + current
            spike = self.spikes(around(eps, kept, kept), eps)
            return spike, (kept * (1 - spike),)
        leaked = before if self.leak == "none" else self.tau() * before
        potential = around(eps, leaked if self.leak == "all" else before, leaked) + current
        spike = self.spikes(potential, eps)
        return spike, (potential * (1 - spike),)


def around(eps: Tensor | float, sides: Tensor, centre: Tensor) -> Tensor:
    """Log-sum-exp (n, units) at ``eps`` of a unit's own value in ``centre`` and its neighbours' in ``sides``, on a ring."""
    return lse(eps, sides.roll(1, -1), centre, sides.roll(-1, -1))
