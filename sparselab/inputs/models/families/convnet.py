"""Plain convolutional networks: convolutions with batch normalisation, some of them pooled; VGG is one of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.core.options import off
from sparselab.inputs.models.bare import BARE, bared
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.spec_builder import SpecBuilder, pooled

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("convnet")
class ConvNet(ImageFamily):
    """3x3 convolutions, each with batch normalisation and ReLU, halved by max-pooling where told; a mean over places, a head.

    VGG-16 for CIFAR (arXiv 1409.1556, configuration D, with one linear layer) is ``widths=[64, 64, 128, …]``, pooled after the
    second, fourth, seventh, tenth and thirteenth.
    """

    trunk = ("convs",)
    batch_norm = True

    class Options(ImageFamily.Options):
        widths: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="channels of the convolutions, in order"
        )
        pools: list[Annotated[int, Field(ge=1)]] = Field(
            description="convolutions (from 1) that are followed by max-pooling, ascending"
        )

        @field_validator("pools")
        @classmethod
        def _ascending(cls, pools: list[int]) -> list[int]:
            if any(a >= b for a, b in pairwise(pools)):
                raise ValueError("do not ascend")
            return pools

        bare: bool = off(False, description=BARE)

    options: Options

    def norm_after(self, name: str) -> str | None:
        return name.replace("convs.", "norms.")

    def misfits(self, data: DataSpec) -> list[Issue]:
        o, issues = self.options, super().misfits(data)
        if o.pools and o.pools[-1] > len(o.widths):
            problem = f"there are {len(o.widths)} convolutions"
            issues.append(Issue(f"model.pools={o.pools[-1]}", problem, f"write at most {len(o.widths)}"))
        if min(data.shape[1:]) >> len(o.pools) == 0:
            problem = f"halves {data.name}'s {data.shape[1]}x{data.shape[2]} pixels {len(o.pools)} times"
            issues.append(Issue("model.pools", problem, "pool after fewer convolutions"))
        return issues

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder(bare=self.options.bare)
        inputs, *size = data.shape
        names = [*(f"convs.{i}" for i in range(len(o.widths))), "head"]
        for i, width in enumerate(o.widths):
            size = list(s.conv(names[i], width, inputs, 3, size))
            s.norm(width)
            s.reads(names[i], names[i + 1], f"norms.{i}")
            if i + 1 in o.pools:
                size = list(pooled(size, 2, 2, 0))
            inputs = width
        s.linear("head", data.classes, inputs)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import ConvNet

        network = ConvNet(data.shape[0], self.options.widths, self.options.pools, data.classes)
        return bared(network) if self.options.bare else network
