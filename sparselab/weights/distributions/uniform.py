"""The same density everywhere, rounded over all layers or in each, and one that spares the first and the last layer."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from sparselab.core.errors import refuse
from sparselab.core.model_spec import Layer
from sparselab.weights.count import keep_count
from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution
from sparselab.weights.distributions.roles import sole
from sparselab.weights.patterns.admitted import patterns_where


@DISTRIBUTIONS.register("uniform")
class Uniform(Distribution):
    """Every layer keeps the requested density. The only distribution that N:M, whose density is fixed, can have."""

    patterns = patterns_where(lambda pattern: True, whole=True, shared=True)

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        return {layer.name: density for layer in layers}


@DISTRIBUTIONS.register("uniform_plus")
class UniformPlus(Distribution):
    """Uniform with a dense first layer and, above 80 % sparsity, a fifth of the last (VITA-Group/Random_Pruning).

    As in the original the total is near the request, not equal to it: below density 0.2 the budget that is left is
    divided by ALL weights and lands under; from 0.2 on nobody pays for the dense first layer and it lands over.
    """

    LAST = 0.2

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        first = sole(layers, "stem", self.where)
        if density >= self.LAST:
            return {layer.name: 1.0 if layer is first else density for layer in layers}
        last = sole(layers, "head", self.where)
        total = sum(layer.numel for layer in layers)
        rest = (density * total - first.numel - self.LAST * last.numel) / total
        if rest <= 0:
            at = 1 - (first.numel + self.LAST * last.numel) / total
            refuse(self.where, "the first and the last layer alone exceed the request", f"sparsity below {at:.4g}")
        return {layer.name: 1.0 if layer is first else self.LAST if layer is last else rest for layer in layers}

    def allocate(self, layers: list[Layer], density: float) -> dict[str, int]:
        """Each layer's own rounding: the total is off by design (see the class)."""
        shares = self.densities(layers, density)
        return {layer.name: keep_count(layer.numel, shares[layer.name]) for layer in layers}


@DISTRIBUTIONS.register("layerwise")
class LayerWise(Distribution):
    """Every layer loses ``int(sparsity * size)`` weights, as in inspire-group/hydra's ``GetSubnet``, and keeps one at least.

    What is kept is rounded up layer by layer, so the total is a little above the request.
    """

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        return {layer.name: density for layer in layers}

    def allocate(self, layers: list[Layer], density: float) -> dict[str, int]:
        """Each layer's own rounding: the total is over by design (see the class)."""
        sparsity = Fraction(repr(round(1 - density, 12)))  # the decimal that was asked for
        return {layer.name: max(1, layer.numel - floor(sparsity * layer.numel)) for layer in layers}
