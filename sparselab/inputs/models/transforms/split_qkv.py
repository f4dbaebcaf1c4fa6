"""Queries, keys and values as layers of their own, in networks that keep the three in one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sparselab.core.errors import Issue
from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.inputs.models.transform import TRANSFORMS, WHERE, Transform, Transformable
from sparselab.inputs.models.weights import Part

if TYPE_CHECKING:
    from torch import nn

    from sparselab.core.data_spec import DataSpec

NAMES = ("q", "k", "v")
"""The three layers inside the one that they replace, and their roles; in the order of its outputs."""


@TRANSFORMS.register("split_qkv")
class SplitQKV(Transform):
    """The same function of three layers ``<name>.q``, ``.k`` and ``.v``, with those roles: selectors tell them apart.

    They start as thirds of the one that they replace, so initial weights are those of the plain network, and a weights
    file of it is read too.
    """

    def misfits(self, family: Transformable, data: DataSpec) -> list[Issue]:
        plain = family.draw(data)
        if plain is None or any("qkv" in layer.roles for layer in plain.layers):
            return []
        problem = f"model={family.name} has no layer with queries, keys and values in one"
        return [Issue(f"{WHERE}.name={self.name}", problem, "leave it out")]

    def part_of(self, tensor: str) -> Part | None:
        path, _, kind = tensor.rpartition(".")
        layer, _, name = path.rpartition(".")
        return Part(f"{layer}.{kind}", NAMES.index(name), len(NAMES)) if layer and name in NAMES else None

    def model_spec(self, family: Transformable, data: DataSpec) -> ModelSpec | None:
        plain = family.draw(data)
        if plain is None:
            return None
        layers = (part for layer in plain.layers for part in (_thirds(layer) if "qkv" in layer.roles else [layer]))
        return replace(plain, layers=tuple(layers))

    def network(self, family: Transformable, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.qkv import split

        model = family.make(data)
        split(model, f"{WHERE}.name={self.name}")
        return model


def _thirds(layer: Layer) -> list[Layer]:
    third = layer.outputs // len(NAMES)
    shape = (layer.inputs, third) if layer.kind == "conv1d" else (third, layer.inputs)
    macs = layer.macs // len(NAMES)
    return [Layer(f"{layer.name}.{name}", layer.kind, shape, macs, frozenset({name})) for name in NAMES]
