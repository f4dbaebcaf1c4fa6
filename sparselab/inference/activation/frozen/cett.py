"""CETT: how much of a layer's output its weakest neurons make, and the threshold that keeps it at a given share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselab.inference.activation.frozen.calibrate import coprime
from sparselab.inference.activation.frozen.gates import Gate, not_below
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.neurons import Products
from sparselab.inference.activation.frozen.search import Family, read, the_neurons

if TYPE_CHECKING:
    from sparselab.inference.activation.searched import CETT


def column_norms(weight: Tensor) -> Tensor:
    """Euclidean norms of the columns of a down-projection, worked out in float32 whatever it is kept in.

    Args:
        weight: (outputs, neurons)

    Returns:
        (neurons,) float32.
    """
    return torch.linalg.vector_norm(weight.float(), dim=0)


def output_norms(h: Tensor, weight: Tensor) -> Tensor:
    """The Euclidean norm of every neuron's output, ||n_i|| = |h_i| ||W[:, i]||.

    Args:
        h: (tokens, neurons) what the down-projection reads
        weight: (outputs, neurons) of the down-projection

    Returns:
        (tokens, neurons) float32.
    """
    return h.float().abs() * column_norms(weight)


def tail_error(h: Tensor, weight: Tensor, below: Tensor | float) -> Tensor:
    """The size of what neurons with an output norm below a threshold make together, over that of the whole layer's output.

    The mean over tokens of ||sum over D of n_i|| / ||W h||, D = {i: ||n_i|| < below} (arXiv 2411.02335). A token without
    output has an error of 0.

    Args:
        h: (tokens, neurons)
        weight: (outputs, neurons)
        below: the threshold

    Returns:
        () float32.
    """
    h, weight = h.float(), weight.float()
    dropped = h.masked_fill(output_norms(h, weight) >= below, 0) @ weight.T
    whole = torch.linalg.vector_norm(h @ weight.T, dim=-1)
    return (torch.linalg.vector_norm(dropped, dim=-1) / whole.clamp_min(torch.finfo(whole.dtype).tiny)).mean()


def candidates(norms: Tensor, count: int, top: float) -> Tensor:
    """Evenly spaced thresholds from the smallest norm to the ``top`` quantile of a sample of about ``count`` norms.

    Args:
        norms: (tokens, neurons)
        count: how many
        top: in (0, 1]

    Returns:
        (count,) float32, ascending.
    """
    step = coprime(max(norms.numel() // count, 1), norms.shape[-1])
    sample = norms.flatten()[::step]
    return torch.linspace(float(norms.min()), float(sample.quantile(top)), count, device=norms.device)


class Thresholds:
    """``thresholds(cett)``: the largest candidate of a layer whose error is at most ``cett``, by halving.

    Errors are kept, so that a search over CETT works out few of them twice.
    """

    def __init__(self, h: Tensor, weight: Tensor, count: int, top: float):
        self.h, self.weight = h.float(), weight.float()
        self.norms = output_norms(self.h, self.weight)
        self.candidates = candidates(self.norms, count, top)
        self.whole = torch.linalg.vector_norm(self.h @ self.weight.T, dim=-1)
        self._errors: dict[int, float] = {}

    def error(self, index: int) -> float:
        """Return :func:`tail_error` below a candidate."""
        if index not in self._errors:
            dropped = self.h.masked_fill(self.norms >= self.candidates[index], 0) @ self.weight.T
            sizes = torch.linalg.vector_norm(dropped, dim=-1) / self.whole.clamp_min(torch.finfo(torch.float32).tiny)
            self._errors[index] = float(sizes.mean())
        return self._errors[index]

    def __call__(self, cett: float) -> Tensor:
        low, high = 0, len(self.candidates)  # below the smallest norm there is nothing: the first one always passes
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.error(middle) <= cett else (low, middle)
        return self.candidates[low]


def family(rule: CETT, network: Network, inputs: list[Tensor]) -> Family:
    """Find the products of gates and up-projections of every layer, and their gates for every CETT.

    Args:
        rule: with its options
        network: the dense network
        inputs: (n, t) int64 each, the windows of the search
    """
    places = [Products(n.name, n.act, n.up, n.first, n.down) for n in the_neurons(network, inputs)]
    seen = read(network, places, inputs, rule.options.dense_prefix)
    options = rule.options
    layers = {p.name: Thresholds(seen[p.name], p.down.weight.detach(), options.thresholds, options.top) for p in places}

    def gates(cett: float) -> dict[str, Gate]:
        return {name: not_below(thresholds(cett).reshape(-1)) for name, thresholds in layers.items()}

    return Family(places, gates)
