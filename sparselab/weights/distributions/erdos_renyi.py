"""Erdős–Rényi densities: the larger a layer, the sparser.

Source of the rules, eps iteration included: VITA-Group/Random_Pruning ``CIFAR/sparselearning/core.py`` and
``ImageNet/core.py`` (arXiv 2202.02643).
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import refuse
from sparselab.core.model_spec import EXPERTS, Layer
from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution
from sparselab.weights.distributions.roles import sole


class _ByShape(Distribution):
    @abstractmethod
    def raw(self, layer: Layer) -> float:
        """The layer's density up to the common factor eps."""

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        return solve(layers, [self.raw(layer) for layer in layers], density)


def of_one(layer: Layer) -> tuple[int, ...]:
    """The weight's shape; of experts that of one, as each is a layer of its own."""
    return layer.shape[1:] if layer.kind in EXPERTS else layer.shape


def solve(layers: list[Layer], raw: list[float], density: float) -> dict[str, float]:
    """Densities eps * raw that keep ``density`` of all weights, with none above 1.

    eps = (d * N_sparse - (1 - d) * N_dense) / sum(raw * N over sparse). While the largest raw would exceed 1, ALL
    layers that tie for it become dense, and eps is solved again.
    """
    sparse, dense_weights = list(range(len(layers))), 0
    densities = [1.0] * len(layers)
    while sparse:
        weights = sum(layers[i].numel for i in sparse)
        eps = (density * weights - (1 - density) * dense_weights) / sum(raw[i] * layers[i].numel for i in sparse)
        top = max(raw[i] for i in sparse)
        if eps * top <= 1:
            for i in sparse:
                densities[i] = eps * raw[i]
            break
        dense_weights += sum(layers[i].numel for i in sparse if raw[i] == top)
        sparse = [i for i in sparse if raw[i] != top]
    return {layer.name: share for layer, share in zip(layers, densities, strict=True)}


@DISTRIBUTIONS.register("er")
class Er(_ByShape):
    """Erdős–Rényi: density ~ (s0 + s1) / (s0 * s1) of the first two dimensions; a kernel does not count."""

    def raw(self, layer: Layer) -> float:
        shape = of_one(layer)[:2]
        return sum(shape) / prod(shape)


@DISTRIBUTIONS.register("erk")
class Erk(_ByShape):
    """Erdős–Rényi-kernel: density ~ (sum of all dimensions / their product) ** power."""

    class Options(spec_options.Options):
        power: float = Field(ge=0, description="a number of at least 0: 1 is ERK, 0 is uniform")

    def raw(self, layer: Layer) -> float:
        shape = of_one(layer)
        return (sum(shape) / prod(shape)) ** self.options.power


@DISTRIBUTIONS.register("erk_plus")
class ErkPlus(Erk):
    """ERK on all but the last layer, whose density is given; the rest pays for it."""

    class Options(Erk.Options):
        fc_density: float = Field(gt=0, le=1, description="density of the last layer, in (0, 1]")

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        last = sole(layers, "head", self.where)
        rest = [layer for layer in layers if layer is not last]
        total, given = sum(layer.numel for layer in layers), self.options.fc_density
        left = density * total - given * last.numel
        weights = total - last.numel
        if not 0 < left <= weights:
            problem = f"{last.name} at density {given:g} leaves {left / max(weights, 1):.4g} for the others"
            refuse(self.where, problem, "change distribution.fc_density or the sparsity")
        others = solve(rest, [self.raw(layer) for layer in rest], left / weights)
        return {layer.name: given if layer is last else others[layer.name] for layer in layers}
