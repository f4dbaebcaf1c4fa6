"""CIFAR's residual networks: ResNet-20, 32, 44, 56, 110."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_validator

from sparselab.core.data_spec import DataSpec
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.transform import Transformable, wider

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("cifar_resnet", yaml="resnet20")
class CifarResNet(Transformable, ImageFamily):
    """ResNet for 32x32 images (arXiv 1512.03385, section 4.2): three stages of n blocks, shortcuts without parameters.

    Names and arithmetic are those of akamaster/pytorch_resnet_cifar10, so its weights load.
    """

    trunk = ("layer1", "layer2", "layer3")
    batch_norm = True

    class Options(Transformable.Options):
        depth: int = Field(ge=8, le=2000, description="6n+2: 20, 32, 44, 56, 110")
        width: int = Field(ge=1, description="channels of the first stage")

        @field_validator("depth")
        @classmethod
        def _six_n_plus_two(cls, depth: int) -> int:
            if depth % 6 != 2:
                raise ValueError("is not 6n+2")
            return depth

    options: Options

    def widened(self, factor: Fraction) -> Self:
        return type(self)(self.options.model_copy(update={"width": wider(self.options.width, factor)}))

    def norm_after(self, name: str) -> str | None:
        return name.replace("conv", "bn")

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder()
        size = s.conv("conv1", o.width, data.shape[0], 3, data.shape[1:])
        s.norm(o.width)
        inputs = o.width
        for stage in (1, 2, 3):
            width = o.width << (stage - 1)
            for i in range((o.depth - 2) // 6):
                block = f"layer{stage}.{i}"
                size = s.conv(f"{block}.conv1", width, inputs, 3, size, stride=2 if stage > 1 and i == 0 else 1)
                s.conv(f"{block}.conv2", width, width, 3, size)
                s.reads(f"{block}.conv1", f"{block}.conv2", f"{block}.bn1")
                s.norm(2 * width)
                inputs = width
        s.linear("linear", data.classes, inputs)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import CifarResNet

        return CifarResNet((self.options.depth - 2) // 6, self.options.width, data.shape[0], data.classes)
