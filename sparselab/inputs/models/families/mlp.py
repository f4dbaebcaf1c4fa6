"""Multi-layer perceptrons."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.options import off
from sparselab.inputs.models.bare import BARE, bared
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.transform import Transformable, wider

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("mlp")
class MLP(Transformable, ImageFamily):
    """Fully connected layers on the flattened image, ReLU between them. [300, 100] is LeNet-300-100."""

    trunk = ("layers",)

    class Options(Transformable.Options):
        hidden: list[Annotated[int, Field(ge=1)]] = Field(description="widths of the hidden layers: a list")
        batch_norm: bool = Field(description="true: batch normalisation before each ReLU")
        dropout: float = Field(ge=0, lt=1, description="probability that a hidden value is dropped in training")

        bare: bool = off(False, description=BARE)

    options: Options

    @property
    def batch_norm(self) -> bool:  # type: ignore[override]
        return self.options.batch_norm

    def widened(self, factor: Fraction) -> Self:
        hidden = [wider(width, factor) for width in self.options.hidden]
        return type(self)(self.options.model_copy(update={"hidden": hidden}))

    def norm_after(self, name: str) -> str | None:
        return name.replace("layers.", "norms.") if self.options.batch_norm else None

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, inputs = SpecBuilder(bare=self.options.bare), prod(data.shape)
        names = [*(f"layers.{i}" for i in range(len(self.options.hidden))), "head"]
        for name, reader, width in zip(names, names[1:], self.options.hidden, strict=False):
            s.linear(name, width, inputs)
            s.reads(name, reader, self.norm_after(name) or "")
            s.norm(width, 2 * self.options.batch_norm)
            inputs = width
        s.linear("head", data.classes, inputs)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import MLP

        o = self.options
        network = MLP(prod(data.shape), o.hidden, o.batch_norm, o.dropout, data.classes)
        return bared(network) if o.bare else network
