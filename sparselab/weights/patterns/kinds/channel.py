"""Whole channels, of outputs (filters) or of inputs, and units, which go with all that is theirs [no torch]."""

from __future__ import annotations

import re
from math import prod

from sparselab.core.model_spec import EXPERTS, Layer
from sparselab.core.sparsity import PATTERNS, Sparsity, density_of
from sparselab.weights.patterns.layout import matrix
from sparselab.weights.patterns.units import Tiled


class _Named(Tiled):
    """A pattern that is written as its name and the fraction that goes."""

    def __str__(self) -> str:
        return f"{self.name}:{self.removed}"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        match = re.fullmatch(rf"{cls.name}:(.+)", str(value))
        return cls(density_of(match[1], at)) if match else None


@PATTERNS.register("channel")
class Channel(_Named):
    """``channel:0.5``: this fraction of the outputs goes, each with its whole filter."""

    form = "channel"
    example = "channel:0.5"
    order = 3
    unit = "channel"

    def tile(self, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
        return 1, matrix(kind, shape)[1]


@PATTERNS.register("in_channel")
class InChannel(_Named):
    """``in_channel:0.5``: this fraction of the inputs goes, each with what all outputs read of it."""

    form = "in_channel"
    example = "in_channel:0.5"
    order = 4
    unit = "input channel"

    def misfit(self, layer: Layer, axis: str) -> str | None:
        if layer.groups > 1 and layer.kind == "conv":
            return f"{layer.name} is a convolution in {layer.groups} groups, each with input channels of its own"
        return super().misfit(layer, axis)

    def tile(self, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
        outputs = matrix(kind, shape)[0]
        return (outputs // shape[0], 1) if kind in EXPERTS else (outputs, prod(shape[2:]))


@PATTERNS.register("unit")
class Unit(Channel):
    """``unit:0.5``: this fraction of a layer's units goes, as if they had never been there.

    The mask drops a unit's weights, as ``channel`` does; its bias, its entries of the norm behind it and what the next layer
    reads of it go, too (:mod:`sparselab.weights.whole_units`), so it puts out nothing, and the network is the smaller one.
    """

    form = "unit"
    example = "unit:0.5"
    order = 5
    unit = "unit"
    whole = True

    def misfit(self, layer: Layer, axis: str) -> str | None:
        if layer.kind not in ("linear", "conv") or layer.groups > 1:
            return f"units of {layer.name} ({layer.kind}) are not told apart"
        if not layer.readers or (layer.adds and not self.shared):
            return f"units of {layer.name} cannot be taken out: no other layer alone reads them"
        return super().misfit(layer, axis)


@PATTERNS.register("shared_unit")
class SharedUnit(Unit):
    """``shared_unit:0.5``: units as above, also of residual streams, where layers that are added lose the same ones."""

    form = "shared_unit"
    example = "shared_unit:0.5"
    order = 6
    shared = True
