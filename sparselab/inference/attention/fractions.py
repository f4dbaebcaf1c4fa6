"""Baselines that keep a given share of the tiles without looking at scores."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.inference.attention.rule import ATTENTIONS, Rule, RuleOptions, Tiles

if TYPE_CHECKING:
    from torch import Tensor


class Share(Rule):
    """Keeps ``ceil(v (1 - s))`` of a query tile's v visible tiles: those of the largest :meth:`preference`.

    The first and the last are always kept.
    """

    @abstractmethod
    def preference(self, tiles: Tiles) -> Tensor:
        """Broadcastable to (n, heads, query tiles, key tiles), below infinity."""

    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        valid = tiles.valid
        seen = valid.sum(-1, keepdim=True)
        ends = valid & ((valid.cumsum(-1) == 1) | (valid.cumsum(-1) == seen))
        count = (seen * (1 - (self.sparsity or 0.0)) - 1e-6).ceil().clamp(min=2).clamp(max=seen)
        wish = self.preference(tiles).expand(valid.shape).masked_fill(ends, math.inf).masked_fill(~valid, -math.inf)
        place = wish.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        return valid & (place < count)


@ATTENTIONS.register("streaming")
class Streaming(Share):
    """The first tile and the most recent ones, as in StreamingLLM (Xiao et al. 2023, arXiv 2309.17453) by tiles."""

    def preference(self, tiles: Tiles) -> Tensor:
        import torch

        return torch.arange(tiles.valid.shape[-1], device=tiles.peak.device, dtype=torch.float32)


@ATTENTIONS.register("random_tiles")
class RandomTiles(Share):
    """The first tile, the last one, and random ones between: other ones in every layer, head, tile and call."""

    class Options(RuleOptions):
        draw: int = Field(ge=0, description="which random tiles, a whole number, at least 0")

    options: Options

    def __init__(self, options: Options, sparsity: float | None = None):
        super().__init__(options, sparsity)
        self._calls = 0

    def preference(self, tiles: Tiles) -> Tensor:
        import torch

        self._calls += 1
        generator = torch.Generator().manual_seed(self.options.draw * 1_000_003 + self._calls)
        return torch.rand(tiles.valid.shape, generator=generator).to(tiles.peak.device)
