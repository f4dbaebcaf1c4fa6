"""DnCNN: a convolutional network that restores images."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Images
from sparselab.core.errors import Issue
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("dncnn")
class DnCNN(Family):
    """``depth`` convolutions of 3x3 that put out the noise, which is taken from the image (arXiv 1608.03981, section III)."""

    heads = ((Images, Images),)

    class Options(Family.Options):
        depth: int = Field(ge=3, le=1000, description="convolutions, at least 3")
        width: int = Field(ge=1, description="channels between them")
        batch_norm: bool = Field(description="true: batch normalisation before each inner ReLU")

    options: Options

    @property
    def batch_norm(self) -> bool:  # type: ignore[override]
        return self.options.batch_norm

    def misfits(self, data: DataSpec) -> list[Issue]:
        if data.inputs.shape == data.targets.shape:
            return []
        problem = f"gives {data.inputs} and {data.name}'s targets are {data.targets}"
        return [Issue(self.where, problem, "choose a dataset whose inputs and targets are of one size")]

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder()
        channels, *size = data.shape
        s.conv("dncnn.0", o.width, channels, 3, size, bias=True)
        for i in range(o.depth - 2):
            s.conv(f"dncnn.{2 + self.stride * i}", o.width, o.width, 3, size)
            s.norm(o.width, 2 * o.batch_norm)
        s.conv(f"dncnn.{2 + self.stride * (o.depth - 2)}", channels, o.width, 3, size)
        places = [0, *(2 + self.stride * i for i in range(o.depth - 1))]
        for at, after in pairwise(places):
            norm = f"dncnn.{at + 1}" if o.batch_norm and at else ""
            s.reads(f"dncnn.{at}", f"dncnn.{after}", norm)
        return s

    @property
    def stride(self) -> int:
        """Modules from one inner convolution to the next."""
        return 2 + self.options.batch_norm

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import DnCNN

        o = self.options
        return DnCNN(data.shape[0], o.width, o.depth, o.batch_norm)
