"""Zipf's law with a shift: the density of the feature of rank r, from 1, is c (r + beta)^-alpha [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHIFTS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Values of beta that a fit tries."""
TINY = 1e-12


def shares(features: int, alpha: float, beta: float) -> list[float]:
    """Weights of all ranks that sum to 1."""
    weights = [(rank + beta) ** -alpha for rank in range(1, features + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def fitted(density: Tensor) -> Tensor:
    """The law's density at each feature's own rank, (features,): constant, exponent and shift by least squares of logarithms.

    Features that never fired count for no point of the fit, and have the last ranks. Zeros where fewer than two fired: nothing
    can be fitted then.
    """
    import torch

    order = density.argsort(descending=True, stable=True)
    values = density[order].double().clamp(min=TINY)
    fired = (density[order] > 0).double()
    ranks = torch.arange(1, len(density) + 1, device=density.device, dtype=torch.float64)
    shifts = torch.tensor(SHIFTS, device=density.device, dtype=torch.float64)
    x, y = (ranks + shifts[:, None]).log(), values.log()
    count = fired.sum().clamp(min=1)
    centre_x, centre_y = (x * fired).sum(1, keepdim=True) / count, (y * fired).sum() / count
    dx, dy = (x - centre_x) * fired, (y - centre_y) * fired
    slope = (dx * dy).sum(1) / dx.square().sum(1).clamp(min=TINY)
    slope = slope.clamp(max=0)  # ranks fall: a rounding error must not make the law rise
    misses = (dy - slope[:, None] * dx).square().sum(1)
    best = misses.argmin()
    law = (centre_y + slope[best] * (x[best] - centre_x[best])).exp()
    law = torch.where(fired.sum() > 1, law, torch.zeros_like(law))
    return torch.empty_like(law).scatter_(0, order, law).to(density.dtype)
