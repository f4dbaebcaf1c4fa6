"""Baselines that keep the keys around a query, and the first ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.inference.attention.rule import ATTENTIONS, Tiles
from sparselab.inference.attention.stepped import Stepped, SteppedOptions

if TYPE_CHECKING:
    from torch import Tensor


class WindowOptions(SteppedOptions):
    """How wide a window is."""

    defaults_from = "attention/_windows"

    keys: int | None = Field(ge=1, description="keys of a window, at least 1, or null with sparsity=…")
    reach: Literal["half", "whole"] = Field(
        description="half: keys / 2 on either side of a query; whole: keys on either side"
    )


class Window(Stepped):
    """The tiles nearest to a tile of queries, on both sides: ``ceil(v (1 - s))`` of v visible ones, or those within ``keys``.

    With ``keys`` a tile is kept if one of its keys lies that near to one of the queries; the window is cut at the text's ends.
    With a sparsity it is moved there, so that every tile of queries keeps as many.
    """

    Options = WindowOptions
    options: WindowOptions

    def __init__(self, options: WindowOptions, sparsity: float | None = None):
        super().__init__(options, sparsity)
        self.own_limit = None if options.keys is None else "keys"

    def sinks(self, tiles: int) -> int:
        """How many of ``tiles`` key tiles, the first ones, are always kept."""
        return 0

    def choose(self, tiles: Tiles) -> Tensor:
        import torch

        assert tiles.scores is not None
        valid, o, (t, s) = tiles.valid, self.options, tiles.scores.shape[-2:]
        (queries, keys), block_q, device = valid.shape[-2:], tiles.block_q, valid.device
        first_q = torch.arange(queries, device=device)[:, None] * block_q + s - t  # queries are the last positions
        first_k = torch.arange(keys, device=device) * o.block_k
        gap = torch.maximum(first_q - (first_k + o.block_k - 1), first_k - (first_q + block_q - 1)).clamp(min=0)
        first = torch.arange(keys, device=device) < self.sinks(keys)
        if o.keys is not None:
            near = gap <= (o.keys // 2 if o.reach == "half" else o.keys)
            return valid & (near | first)
        seen = valid.sum(-1, keepdim=True)
        count = (seen * (1 - (self.sparsity or 0.0)) - 1e-6).ceil().clamp(min=1)
        wish = -(gap + (first_q - first_k).abs() / 1e6).expand(valid.shape)
        wish = wish.masked_fill(first, math.inf).masked_fill(~valid, -math.inf)
        place = wish.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        return valid & (place < count)


@ATTENTIONS.register("window")
class SlidingWindow(Window):
    """The keys around a query, on both sides."""


@ATTENTIONS.register("sink_window")
class SinkWindow(Window):
    """The first keys and those around a query: StreamingLLM (Xiao et al. 2023, arXiv 2309.17453) in both directions."""

    class Options(WindowOptions):
        sinks: float = Field(ge=0, le=1, description="in [0, 1]: share of the keys, the first ones, that are kept")

    options: Options

    def sinks(self, tiles: int) -> int:
        return math.ceil(tiles * self.options.sinks - 1e-9)
