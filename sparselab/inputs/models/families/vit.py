"""Vision transformers: timm's network, fitted to the size of the images."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Self

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.inputs.models.family import MODELS, ImageFamily, misfit
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.transform import Transformable, wider

if TYPE_CHECKING:
    from torch import nn

PATCHES = (16, 8, 4, 2)
FEWEST = 7  # patches a side that the automatic choice leaves, where it can


def patch_for(height: int, width: int) -> int | None:
    """The patch size for an image where the options name none; None where no size of ``PATCHES`` divides it.

    The largest that leaves at least 7 patches a side, else 4, else 2: 224 -> 16, 96 -> 8, 32 -> 4, 28 -> 4, 8 -> 4.
    (On 8x8 images patches of 2 cost 3.4 times as much.)
    """
    fitting = [patch for patch in PATCHES if height % patch == 0 and width % patch == 0]
    fine = [patch for patch in fitting if min(height, width) // patch >= FEWEST]
    return next(iter(fine or [patch for patch in (4, 2) if patch in fitting]), None)


@MODELS.register("vit", yaml="vit_s")
class ViT(Transformable, ImageFamily):
    """ViT with a class token and learned positions (arXiv 2010.11929), the widths of DeiT (arXiv 2012.12877)."""

    trunk = ("blocks",)
    final_norm = "norm"

    class Options(Transformable.Options):
        width: int = Field(ge=1, description="channels of a token")
        depth: int = Field(ge=1, le=1000, description="number of blocks")
        heads: int = Field(ge=1, description="attention heads; must divide width")
        mlp_ratio: float = Field(gt=0, description="hidden width of a block's feed-forward part, in widths")
        patch: int | None = Field(ge=1, description="pixels of a patch's side; null chooses by the image's size")
        dropout: float = Field(ge=0, lt=1, description="probability that a value is dropped in training")
        drop_path: float = Field(ge=0, lt=1, description="probability that the last block is skipped in training")

    options: Options

    def widened(self, factor: Fraction) -> Self:
        width = wider(self.options.width, factor, self.options.heads)
        return type(self)(self.options.model_copy(update={"width": width}))

    def _patch(self, data: DataSpec) -> int:
        """Pixels of a patch's side, 0 where none fits."""
        return self.options.patch or patch_for(*data.shape[1:]) or 0

    def misfits(self, data: DataSpec) -> list[Issue]:
        o = self.options
        _, height, width = data.shape
        issues = []
        if o.width % o.heads:
            issues.append(misfit("heads", o.heads, f"does not divide width {o.width}", "choose a divisor of the width"))
        patch = self._patch(data)
        if not patch:
            problem = f"no usual patch divides {data.name}'s {height}x{width} images"
            issues.append(misfit("patch", "null", problem, "set model.patch to a divisor of both sides"))
        elif height % patch or width % patch:
            problem = f"does not divide {data.name}'s {height}x{width} images"
            issues.append(misfit("patch", patch, problem, "choose a divisor of both sides, or null"))
        return issues

    def builder(self, data: DataSpec) -> SpecBuilder:
        o = self.options
        channels, height, width = data.shape
        patch, hidden, s = self._patch(data), int(o.width * o.mlp_ratio), SpecBuilder()
        rows, columns = s.conv(
            "patch_embed.proj", o.width, channels, patch, (height, width), stride=patch, padding=0, bias=True
        )
        tokens = rows * columns + 1
        s.table("cls_token", 1, 1, o.width)
        s.table("pos_embed", 1, tokens, o.width)
        for block in (f"blocks.{i}" for i in range(o.depth)):
            s.norm(o.width)
            s.linear(f"{block}.attn.qkv", 3 * o.width, o.width, tokens)
            s.products(f"{block}.attn", o.heads, tokens, o.width // o.heads)
            s.linear(f"{block}.attn.proj", o.width, o.width, tokens)
            s.norm(o.width)
            s.linear(f"{block}.mlp.fc1", hidden, o.width, tokens)
            s.linear(f"{block}.mlp.fc2", o.width, hidden, tokens)
        s.norm(o.width)
        s.linear("head", data.classes, o.width)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.lazy_timm import timm

        o = self.options
        return timm("timm.models.vision_transformer").VisionTransformer(
            img_size=(data.shape[1], data.shape[2]),
            patch_size=self._patch(data),
            in_chans=data.shape[0],
            num_classes=data.classes,
            embed_dim=o.width,
            depth=o.depth,
            num_heads=o.heads,
            mlp_ratio=o.mlp_ratio,
            drop_rate=o.dropout,
            proj_drop_rate=o.dropout,
            pos_drop_rate=o.dropout,
            drop_path_rate=o.drop_path,
        )
