"""The attention that tiles hold, and the tiles that hold most of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparselab.inference.attention.rule import Tiles

if TYPE_CHECKING:
    from sparselab.inference.attention.sparsed import SparseD


def pooled(weights: Tensor, block_q: int, block_k: int, edges: str = "padded") -> Tensor:
    """Average over tiles.

    Args:
        weights: (..., queries, keys), at least 0
        block_q: queries in a tile
        block_k: keys in a tile
        edges: of a tile that stands over the end the sum is divided by the size of a whole one (``padded``), or of what is
            there (``valid``)

    Returns:
        (..., query tiles, key tiles).
    """
    t, s = weights.shape[-2:]
    tiles = pad(weights, (0, -s % block_k, 0, -t % block_q)).unflatten(-1, (-1, block_k)).unflatten(-3, (-1, block_q))
    sums = tiles.sum((-3, -1))
    if edges == "padded":
        return sums / (block_q * block_k)
    rows = torch.full((sums.shape[-2], 1), float(block_q), device=weights.device)
    keys = torch.full((sums.shape[-1],), float(block_k), device=weights.device)
    rows[-1] -= -t % block_q
    keys[-1] -= -s % block_k
    return sums / (rows * keys)


def border(length: int, generated: int, block: int) -> int:
    """The first key tile of which no key is the prompt's, but at most the last tile (INV-WZQ/SparseD ``modeling_llada.py``)."""
    tiles = -(-length // block)
    return next((tile for tile in range(tiles) if length - tile * block <= generated), tiles - 1)


def count_coded(tiles: int, share: float) -> int:
    """``max(1, int(tiles share) + 1)``, which is more than there are at a share of 1."""
    return max(1, int(tiles * share + 1e-9) + 1)  # 1 - 0.8 is a hair below 0.2


def count_of(tiles: int, share: float) -> int:
    """The share of ``tiles``, rounded up, at least one where there is any."""
    return min(tiles, max(1, math.ceil(tiles * share - 1e-9)))


def largest(mass: Tensor, count: int) -> Tensor:
    """(..., tiles) bool: the ``count`` tiles with most; of equal ones the first. mass: (..., tiles)."""
    order = mass.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, order, True)


def selected(tiles: Tiles, options: SparseD.Options, share: float, generated: int, made: int) -> Tensor:
    """Choose the tiles of a mask.

    Args:
        tiles: of a layer; their scores are (n, heads, queries, keys)
        options: of the rule
        share: of tiles to keep
        generated: keys, the last ones, that are not the prompt's
        made: number of the mask, at which random tiles are drawn

    Returns:
        (n, heads, query tiles, key tiles) bool.
    """
    scores, o, block = tiles.scores, options, tiles.block_k
    assert scores is not None
    if o.score_scale == "sqrt_heads":
        scores = scores * (tiles.width / scores.shape[1]) ** 0.5
    first = border(scores.shape[-1], generated, block)

    def mass_from(key: int) -> Tensor:
        """Tiles' attention where only keys from one on are seen."""
        weights = scores[..., key:].softmax(-1).nan_to_num(0.0)
        found = pooled(weights, tiles.block_q, block, o.edges)
        if o.score == "attention":
            return found
        generator = torch.Generator().manual_seed(o.draw * 1_000_003 + made)
        return torch.rand(found.shape, generator=generator).to(found.device)

    mass = mass_from(0)
    n = mass.shape[-1]
    if o.selection == "repo":
        kept = largest(mass, min(count_coded(n, share), n))
        if o.isolated:
            kept[..., first:] = largest(mass_from(first * block), min(count_coded(n - first, share), n - first))
        return kept
    if not o.isolated or first == 0:
        return largest(mass, count_of(n, share))
    parts = [largest(part, count_of(part.shape[-1], share)) for part in (mass[..., :first], mass[..., first:])]
    return torch.cat(parts, -1)
