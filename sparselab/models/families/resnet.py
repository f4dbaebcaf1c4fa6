"""ImageNet's residual networks: timm's, with a stem that fits the size of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.models.family import MODELS, ImageFamily
from sparselab.models.sketch import Sketch, pooled
from sparselab.spec.dataspec import DataSpec

if TYPE_CHECKING:
    from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK = 50  # depths from here on have blocks of three convolutions, four times as wide at their end
WIDTHS = (64, 128, 256, 512)
SMALL = 64  # pixels; images up to here keep their resolution through the stem


@MODELS.register("resnet")
class ResNet(ImageFamily):
    """ResNet (arXiv 1512.03385), stride in the 3x3 convolution as in torchvision and timm.

    Images up to 64 pixels get a 3x3 stem of stride 1 and no max-pooling, as is usual for CIFAR; larger ones the
    original 7x7 stem of stride 2 with max-pooling.
    """

    trunk = ("layer1", "layer2", "layer3", "layer4")

    class Options(ImageFamily.Options):
        depth: Literal[18, 34, 50, 101, 152] = Field(18, description="one of 18, 34, 50, 101, 152")
        dropout: float = Field(
            0.0, ge=0, lt=1, description="probability that a feature is dropped before the classifier"
        )
        drop_path: float = Field(0.0, ge=0, lt=1, description="probability that the last block is skipped in training")

    options: Options

    @staticmethod
    def _small(data: DataSpec) -> bool:
        return max(data.shape[1:]) <= SMALL

    def sketch(self, data: DataSpec) -> Sketch:
        s, size = Sketch(), data.shape[1:]
        if self._small(data):
            size = s.conv("conv1", 64, data.shape[0], 3, size)
        else:
            size = pooled(s.conv("conv1", 64, data.shape[0], 7, size, stride=2), 3, 2, 1)
        s.norm(64)
        inputs, bottleneck = 64, self.options.depth >= BOTTLENECK
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[self.options.depth], strict=True), start=1):
            outputs = width * (4 if bottleneck else 1)
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                block, before = f"layer{stage}.{i}", size
                if bottleneck:
                    s.conv(f"{block}.conv1", width, inputs, 1, size)
                    size = s.conv(f"{block}.conv2", width, width, 3, size, stride)
                    s.conv(f"{block}.conv3", outputs, width, 1, size)
                    s.norm(2 * width + outputs)
                else:
                    size = s.conv(f"{block}.conv1", width, inputs, 3, size, stride)
                    s.conv(f"{block}.conv2", outputs, width, 3, size)
                    s.norm(width + outputs)
                if stride > 1 or inputs != outputs:
                    s.conv(f"{block}.downsample.0", outputs, inputs, 1, before, stride)
                    s.norm(outputs)
                inputs = outputs
        s.linear("fc", data.classes, inputs)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        import timm
        from torch import nn

        o = self.options
        model = timm.create_model(
            f"resnet{o.depth}",
            in_chans=data.shape[0],
            num_classes=data.classes,
            drop_rate=o.dropout,
            drop_path_rate=o.drop_path,
        )
        if self._small(data):
            model.conv1 = nn.Conv2d(data.shape[0], 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        return model
