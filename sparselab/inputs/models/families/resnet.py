"""ImageNet's residual networks: timm's, with a stem that fits the size of the images."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.options import off
from sparselab.inputs.models.bare import BARE, bared
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder, pooled
from sparselab.inputs.models.transform import Transformable, wider

if TYPE_CHECKING:
    from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK = 50  # depths from here on have blocks of three convolutions, four times as wide at their end
WIDTH = 64  # channels of the stem and the first stage; each later stage has twice as many
SMALL = 64  # pixels; images up to here keep their resolution through the stem


@MODELS.register("resnet", yaml="resnet18")
class ResNet(Transformable, ImageFamily):
    """ResNet (arXiv 1512.03385), stride in the 3x3 convolution as in torchvision and timm.

    Images up to 64 pixels get a 3x3 stem of stride 1 and no max-pooling, as is usual for CIFAR; larger ones the
    original 7x7 stem of stride 2 with max-pooling.
    """

    trunk = ("layer1", "layer2", "layer3", "layer4")
    batch_norm = True

    class Options(Transformable.Options):
        depth: Literal[18, 34, 50, 101, 152] = Field(description="one of 18, 34, 50, 101, 152")
        dropout: float = Field(ge=0, lt=1, description="probability that a feature is dropped before the classifier")
        drop_path: float = Field(ge=0, lt=1, description="probability that the last block is skipped in training")

        bare: bool = off(False, description=BARE)
        width: int = off(WIDTH, ge=1, description="channels of the stem and the first stage, at least 1")

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self.width = options.width

    def widened(self, factor: Fraction) -> Self:
        family = type(self)(self.options)
        family.width = wider(self.options.width, factor)
        return family

    def norm_after(self, name: str) -> str | None:
        return name.replace("downsample.0", "downsample.1").replace("conv", "bn")

    @staticmethod
    def _small(data: DataSpec) -> bool:
        return max(data.shape[1:]) <= SMALL

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, size = SpecBuilder(bare=self.options.bare), data.shape[1:]
        if self._small(data):
            size = s.conv("conv1", self.width, data.shape[0], 3, size)
        else:
            size = pooled(s.conv("conv1", self.width, data.shape[0], 7, size, stride=2), 3, 2, 1)
        s.norm(self.width)
        inputs, bottleneck = self.width, self.options.depth >= BOTTLENECK
        stream = "stem"  # what the next block reads, and adds to where its shortcut has no convolution
        s.adds("conv1", stream, "bn1")
        for stage, blocks in enumerate(BLOCKS[self.options.depth], start=1):
            width = self.width << (stage - 1)
            outputs = width * (4 if bottleneck else 1)
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                block, before = f"layer{stage}.{i}", size
                projected = stride > 1 or inputs != outputs
                s.reads_stream(f"{block}.conv1", stream)
                if projected:
                    s.reads_stream(f"{block}.downsample.0", stream)
                    stream = f"layer{stage}"
                    s.adds(f"{block}.downsample.0", stream, f"{block}.downsample.1")
                if bottleneck:
                    s.conv(f"{block}.conv1", width, inputs, 1, size)
                    size = s.conv(f"{block}.conv2", width, width, 3, size, stride)
                    s.conv(f"{block}.conv3", outputs, width, 1, size)
                    s.reads(f"{block}.conv2", f"{block}.conv3", f"{block}.bn2")
                    s.adds(f"{block}.conv3", stream, f"{block}.bn3")
                    s.norm(2 * width + outputs)
                else:
                    size = s.conv(f"{block}.conv1", width, inputs, 3, size, stride)
                    s.conv(f"{block}.conv2", outputs, width, 3, size)
                    s.adds(f"{block}.conv2", stream, f"{block}.bn2")
                    s.norm(width + outputs)
                s.reads(f"{block}.conv1", f"{block}.conv2", f"{block}.bn1")
                if projected:
                    s.conv(f"{block}.downsample.0", outputs, inputs, 1, before, stride)
                    s.norm(outputs)
                inputs = outputs
        s.linear("fc", data.classes, inputs)
        s.reads_stream("fc", stream)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from torch import nn

        from sparselab.inputs.models.lazy_timm import timm

        o = self.options
        model = timm().create_model(
            f"resnet{o.depth}",
            in_chans=data.shape[0],
            num_classes=data.classes,
            drop_rate=o.dropout,
            drop_path_rate=o.drop_path,
        )
        if self.width != WIDTH:
            self._widen(model, data)
        if self._small(data):
            model.conv1 = nn.Conv2d(data.shape[0], self.width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        return bared(model) if o.bare else model

    def _widen(self, model: Any, data: DataSpec) -> None:
        """Give timm's network other widths: its stages can be asked for, its stem is always 64 channels wide."""
        from timm.models.resnet import BasicBlock, Bottleneck, make_blocks
        from torch import nn

        o = self.options
        block = Bottleneck if o.depth >= BOTTLENECK else BasicBlock
        blocks = BLOCKS[o.depth]
        widths = tuple(self.width << stage for stage in range(len(blocks)))
        model.conv1 = nn.Conv2d(data.shape[0], self.width, 7, 2, padding=3, bias=False)
        model.bn1 = nn.BatchNorm2d(self.width)
        stages, _ = make_blocks(
            (block,) * len(blocks),
            widths,
            blocks,
            self.width,
            drop_path_rate=o.drop_path,
            cardinality=1,
            base_width=WIDTH,
            act_layer=nn.ReLU,
            norm_layer=nn.BatchNorm2d,
            aa_layer=None,
        )
        for name, stage in stages:
            model.set_submodule(name, stage)
        model.num_features = widths[-1] * block.expansion
        model.fc = nn.Linear(model.num_features, data.classes)
        model.init_weights()
