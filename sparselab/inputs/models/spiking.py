"""Networks of spiking neurons. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from sparselab.inputs.models import encoding

if TYPE_CHECKING:
    from sparselab.inputs.models.neuron import Neuron


@dataclass(frozen=True)
class Code:
    """How a picture becomes time steps: ``rate``, ``direct`` or ``rows``."""

    way: str
    steps: int
    gain: float

    def __call__(self, images: Tensor, training: bool) -> Tensor:
        """(n, c, h, w) to (n, steps, c, h, w); of rows to (n, h, c * w). Rates are drawn anew in training."""
        if self.way == "rate":
            return encoding.rate(images, self.steps, self.gain, training)
        return encoding.rows(images) if self.way == "rows" else encoding.direct(images, self.steps)


class Spiking(nn.Module):
    """Base: the code, the layers' neurons, and the mean over time of what the head makes of the last spikes."""

    def __init__(self, code: Code, neuron: Neuron, layers: int):
        super().__init__()
        self.code = code
        self.timesteps = code.steps
        self.neurons = nn.ModuleList(neuron.make() for _ in range(layers))

    def numbers(self) -> dict[str, float]:
        """Trained scalars of the neurons by name and layer, from 1: ``eps_1``."""
        found = enumerate(self.neurons, 1)
        return {f"{name}_{i}": value for i, layer in found for name, value in layer.numbers().items()}  # type: ignore[operator]


class SpikingMLP(Spiking):
    """(n, c, h, w) -> (n, classes): linear layers with neurons behind them (JomaMinoza/UltraLIF networks/fc.py).

    residual: the spikes of a layer are added to those of the next one. last: the classes are neurons, too, and their mean
    spikes are the logits (ablations/eps_ablation.py).
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        code: Code,
        neuron: Neuron,
        batch_norm: bool,
        residual: bool,
        last: bool,
    ):
        super().__init__(code, neuron, len(hidden) + last)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([inputs, *hidden]))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in hidden)
        self.head = nn.Linear(hidden[-1], classes)
        self.residual, self.last = residual, last

    def forward(self, images: Tensor) -> Tensor:
        x = self.code(images, self.training).flatten(2)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            spikes = self.neurons[i](stepwise(norm, layer(x)))
            x = spikes + x if self.residual and i else spikes
        out = self.head(x)
        return (self.neurons[-1](out) if self.last else out).mean(1)


class SpikingConvNet(Spiking):
    """(n, c, h, w) -> (n, classes): 3x3 convolutions, each with a mean over 2x2 pixels and neurons behind it, and a head.

    Neurons are those of the flattened feature map (JomaMinoza/UltraLIF networks/conv.py).
    """

    def __init__(
        self, channels: int, widths: Sequence[int], places: int, classes: int, code: Code, neuron: Neuron, norm: bool
    ):
        super().__init__(code, neuron, len(widths))
        sizes = [channels, *widths]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) if norm else nn.Identity() for width in widths)
        self.head = nn.Linear(widths[-1] * places, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.code(images, self.training)
        for conv, norm, neuron in zip(self.convs, self.norms, self.neurons, strict=True):
            x = stepwise(norm, conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            x = neuron(avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2]))
        return self.head(x.flatten(2)).mean(1)


def stepwise(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm`` at each time step of ``x`` (n, t, …) by itself: batch statistics are those of one step."""
    return x if isinstance(norm, nn.Identity) else torch.stack([norm(step) for step in x.unbind(1)], 1)
