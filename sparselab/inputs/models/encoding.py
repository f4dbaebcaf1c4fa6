"""Pictures as sequences of time steps. Imports torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sparselab.core.seeds import derive_seed

STARTS = 1 << 20  # places of the table of random numbers where an image may begin


def rate(images: Tensor, steps: int, gain: float, drawn: bool) -> Tensor:
    """Spikes at rates: at every step 1 with probability ``gain * clamp(x, 0, 1)``, else 0 (JomaMinoza/UltraLIF encoding.py).

    Args:
        images: (n, …) float, normalised: what is below the mean never spikes
        steps: time steps
        gain: the probability of a value of 1
        drawn: from torch's global generator; else by each image's own content, the same in every pass, batch and process

    Returns:
        (n, steps, …) of 0 and 1.
    """
    shape = images.shape
    chance = (gain * images.clamp(0, 1)).unsqueeze(1)
    if drawn:
        return (torch.rand(len(images), steps, *shape[1:], device=images.device) < chance).to(images.dtype)
    values = images.flatten(1)
    places = steps * values.shape[1]
    numbers = uniforms(places, str(images.device)).as_strided((STARTS, places), (1, 1))[content(values)]
    return (numbers.view(len(images), steps, *shape[1:]) < chance).to(images.dtype)


def direct(images: Tensor, steps: int) -> Tensor:
    """The images (n, …) themselves at every step: (n, steps, …)."""
    return images.unsqueeze(1).expand(-1, steps, *images.shape[1:])


def rows(images: Tensor) -> Tensor:
    """Rows of images (n, c, h, w) as time steps: (n, h, c * w)."""
    return images.transpose(1, 2).flatten(2)


def content(values: Tensor) -> Tensor:
    """A whole number below :data:`STARTS` for each row of ``values`` (n, features): equal rows have equal ones."""
    whole = (values * 4096).round().long()
    place = torch.arange(1, values.shape[1] + 1, device=values.device)
    mixed = (whole * (place * 2654435761 + 40503)).sum(1)
    return ((mixed ^ (mixed >> 21)) * 0x9E3779B1 >> 11) % STARTS


@lru_cache(maxsize=4)
def uniforms(places: int, device: str) -> Tensor:
    """A table of random numbers in [0, 1), long enough for ``places`` of them from every start."""
    generator = torch.Generator().manual_seed(derive_seed("rate encoding"))
    return torch.rand(STARTS + places, generator=generator, device="cpu").to(device)
