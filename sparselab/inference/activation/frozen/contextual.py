"""Gates on neurons that look at the text at hand alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselab.inference.activation.frozen.gates import ROUNDING, Gate, kept_of, largest
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.neurons import Neurons, find_neurons
from sparselab.inference.activation.frozen.sites import Mask, find_blocks
from sparselab.inference.parts import Activations


def by_gate(network: Network) -> Activations:
    """Find the neurons, and rank those of every token by their gate."""
    neurons, level = _neurons(network), network.target
    gates = {one.name: without_smallest(level) for one in neurons} if level else {}
    return Activations(neurons, {one.name: level for one in neurons}, gates)


def by_prompt(network: Network) -> Activations:
    """Find the neurons, to be cut whole, and rank them by what a prompt makes of them."""
    cut = [CutNeurons(one.name, one.act, one.up, one.first, one.down) for one in _neurons(network)]
    level = network.target
    gates = {one.name: Prompted(level) for one in cut} if level else {}
    return Activations(cut, {one.name: level for one in cut}, gates)


def _neurons(network: Network) -> list[Neurons]:
    tokens = network.windows("calibrate", 1)[0]
    return find_neurons(network.model, find_blocks(network.model, tokens, ()), tokens)


@dataclass
class CutNeurons(Neurons):
    """Neurons that are cut with all that belongs to them: what the down-projection reads of one is zero."""

    @property
    def params(self) -> int:
        """Weights of the gate, the up- and the down-projection."""
        return 2 * self.inputs * self.up.inputs + self.down.params

    def attach(self, mask: Mask) -> Any:
        """Show every product g ⊙ u to ``mask``."""
        return self.down.attach(mask)


def without_smallest(level: float) -> Gate:
    """Keeps all but the int(n s) smallest scores of every token."""

    def gate(scores: Tensor) -> Tensor:
        n = scores.shape[-1]
        return largest(scores, n - int(n * level + ROUNDING))

    return gate


class Prompted:
    """Keeps, of every token, the neurons that were chosen on the prompt of its text. A text of one prompt at a time."""

    def __init__(self, level: float):
        self.level = level
        self.kept: Tensor | None = None  # (texts, 1, neurons)

    def see(self, x: Tensor) -> None:
        """Choose by the prompts' products x, (texts, t, neurons)."""
        n = x.shape[-1]
        few = x.shape[-2] < 2
        self.kept = None if few else largest(prompt_statistic(x), kept_of(n, self.level))[:, None]

    def __call__(self, scores: Tensor) -> Tensor:
        if self.kept is None:
            return torch.ones_like(scores, dtype=torch.bool)
        return self.kept.expand_as(scores)


def prompt_statistic(z: Tensor) -> Tensor:
    """How much each neuron contributes to its tokens' products (arXiv 2404.01365).

    Args:
        z: (..., t, neurons) products of gate and up-projection

    Returns:
        (..., neurons), float32: the norm over tokens, after every token's row was divided by its own.
    """
    rows = z.float()
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.linalg.vector_norm(rows, dim=-2)
