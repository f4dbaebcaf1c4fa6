"""Sparsities written down layer by layer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sparselab.core import options as spec_options
from sparselab.core.errors import Issues
from sparselab.core.model_spec import Layer
from sparselab.weights.count import keep_count
from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution
from sparselab.weights.targets import matching


@DISTRIBUTIONS.register("per_layer")
class PerLayer(Distribution):
    """``layers`` maps selectors (as in ``targets``) to sparsities; the first that matches a layer counts.

    Layers that none matches have the requested sparsity. The total is what the list gives, whatever was requested.
    """

    class Options(spec_options.Options):
        layers: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
            min_length=1, description="selectors with their sparsity in [0, 1), as in {blocks.*.fc1: 0.9}"
        )

    def densities(self, layers: list[Layer], density: float) -> dict[str, float]:
        shares: dict[str, float] = {}
        issues = Issues()
        for selector, sparsity in self.options.layers.items():
            with issues.collect():
                for layer in matching(layers, selector, f"distribution.layers[{selector!r}]"):
                    shares.setdefault(layer.name, 1 - sparsity)
        issues.raise_if_any()
        return {layer.name: shares.get(layer.name, density) for layer in layers}

    def allocate(self, layers: list[Layer], density: float) -> dict[str, int]:
        """Each layer's own rounding: the total follows from the list (see the class)."""
        shares = self.densities(layers, density)
        return {layer.name: keep_count(layer.numel, shares[layer.name]) for layer in layers}
