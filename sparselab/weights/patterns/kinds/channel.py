"""Whole channels: of outputs (filters), or of inputs [no torch]."""

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
