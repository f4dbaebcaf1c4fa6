"""Wide residual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from sparselab.core.data_spec import DataSpec
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn

STEM = 16  # channels before the first stage


@MODELS.register("wrn")
class WideResNet(ImageFamily):
    """WRN-depth-widen (arXiv 1605.07146): pre-activation blocks of two 3x3 convolutions, dropout between them."""

    trunk = ("layer1", "layer2", "layer3")
    batch_norm = True

    class Options(ImageFamily.Options):
        depth: int = Field(ge=10, le=1000, description="6n+4: 16, 22, 28")
        widen: int = Field(ge=1, description="factor on the stage widths 16, 32, 64")
        dropout: float = Field(ge=0, lt=1, description="probability that a value is dropped between convolutions")

        @field_validator("depth")
        @classmethod
        def _six_n_plus_four(cls, depth: int) -> int:
            if depth % 6 != 4:
                raise ValueError("is not 6n+4")
            return depth

    options: Options

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder()
        size = s.conv("conv1", STEM, data.shape[0], 3, data.shape[1:])
        inputs = STEM
        for stage in (1, 2, 3):
            width = (STEM << (stage - 1)) * o.widen
            for i in range((o.depth - 4) // 6):
                block, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                s.norm(inputs)
                if stride > 1 or inputs != width:
                    s.conv(f"{block}.shortcut", width, inputs, 1, size, stride)
                size = s.conv(f"{block}.conv1", width, inputs, 3, size, stride)
                s.norm(width)
                s.conv(f"{block}.conv2", width, width, 3, size)
                inputs = width
        s.norm(inputs)
        s.linear("linear", data.classes, inputs)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import WideResNet

        o = self.options
        return WideResNet((o.depth - 4) // 6, STEM, o.widen, o.dropout, data.shape[0], data.classes)
