"""MobileNet-v2 for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn

STEM, LAST = 32, 1280
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(factor inside a block, channels, blocks, stride of the first block) of each stage."""
Block = tuple[int, int, int, int]


def blocks(width: float) -> list[Block]:
    """Return the inverted bottlenecks in order: (inputs, channels inside, outputs, stride)."""
    inputs, found = scaled(STEM, width), []
    for factor, channels, number, stride in STAGES:
        outputs = scaled(channels, width)
        for turn in range(number):
            found.append((inputs, factor * inputs, outputs, stride if turn == 0 else 1))
            inputs = outputs
    return found


def scaled(channels: int, width: float) -> int:
    """Return the channels at a width, at least 2."""
    return max(2, round(channels * width))


@MODELS.register("mobilenet_v2")
class MobileNetV2(ImageFamily):
    """Inverted bottlenecks with depthwise convolutions (Sandler et al. 2018, arXiv 1801.04381).

    Strides, names and shortcuts are those of kuangliu/pytorch-cifar, which hamidmousavi0/PR-DARTS prunes: a block whose
    channels change at stride 1 has a 1x1 convolution as its shortcut; activations are ReLU; a mean over places ends it.
    """

    trunk = ("layers",)
    batch_norm = True

    class Options(ImageFamily.Options):
        width: float = Field(gt=0, le=4, description="factor of all channels, above 0 and at most 4")

    options: Options

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, width = SpecBuilder(), self.options.width
        size = s.conv("conv1", scaled(STEM, width), data.shape[0], 3, data.shape[1:])
        s.norm(scaled(STEM, width))
        there = blocks(width)
        for number, (inputs, inside, outputs, stride) in enumerate(there):
            block = f"layers.{number}"
            s.conv(f"{block}.conv1", inside, inputs, 1, size)
            moved = s.conv(f"{block}.conv2", inside, 1, 3, size, stride, groups=inside)
            s.conv(f"{block}.conv3", outputs, inside, 1, moved)
            s.norm(2 * inside + outputs)
            if stride == 1 and inputs != outputs:
                s.conv(f"{block}.shortcut.0", outputs, inputs, 1, size)
                s.norm(outputs)
            size = moved
        s.conv("conv2", scaled(LAST, width), there[-1][2], 1, size)
        s.norm(scaled(LAST, width))
        s.linear("linear", data.classes, scaled(LAST, width))
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.inverted_bottlenecks import MobileNetV2

        width = self.options.width
        return MobileNetV2(
            blocks(width), scaled(STEM, width), scaled(LAST, width), colours=data.shape[0], classes=data.classes
        )
