"""Algorithm 1 of BLASST (arXiv 2512.12087), tile by tile: the reference that everything faster is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparselab.inference.attention.tiled.tiles import causal, scores_of


def online_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, threshold: float, block_q: int, block_k: int,
    order: str = "forward", visible: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(output (n, heads, t, d), kept and visible tiles: (n, heads, query tiles, key tiles) bool).

    q: (n, heads, t, d); k, v: (n, kv heads, s, d); threshold: lambda. Of a skipped tile neither exponentials nor the
    product with V are taken: row sums and outputs of the heads that skip it stay as they are.
    """
    t, s = q.shape[-2], k.shape[-2]
    seen = causal(t, s, q.device) if visible is None else visible
    scores = scores_of(q, k, scale, seen)
    values = v.repeat_interleave(q.shape[1] // v.shape[1], 1).float()
    rows, columns = range(0, t, block_q), range(0, s, block_k)
    kept = torch.zeros(*q.shape[:2], len(rows), len(columns), dtype=torch.bool, device=q.device)
    there = torch.zeros_like(kept)
    outputs = []
    for i, top in enumerate(rows):
        height = min(block_q, t - top)
        m = torch.full((*q.shape[:2], height, 1), -math.inf, device=q.device)
        total, out = torch.zeros_like(m), torch.zeros(*q.shape[:2], height, v.shape[-1], device=q.device)
        for j in range(len(columns)) if order == "forward" else reversed(range(len(columns))):
            part = scores[:, :, top : top + height, columns[j] : columns[j] + block_k]
            peak = part.amax(-1, keepdim=True)
            highest = torch.maximum(m, peak)
            visible_here = (peak > -math.inf).flatten(2).any(-1)
            skippable = (peak - highest < math.log(threshold)) | (peak == -math.inf)  # a row that sees nothing agrees
            go = visible_here & ~skippable.flatten(2).all(-1)
            there[:, :, i, j], kept[:, :, i, j] = visible_here, go
            base = highest.masked_fill(highest == -math.inf, 0)
            p, shrink = (part - base).exp(), (m - base).exp()
            go = go[:, :, None, None]
            total = torch.where(go, shrink * total + p.sum(-1, keepdim=True), total)
            out = torch.where(go, shrink * out + p @ values[:, :, columns[j] : columns[j] + block_k], out)
            m = torch.where(go, highest, m)
        outputs.append(out / total.clamp(min=torch.finfo(torch.float32).tiny))
    return torch.cat(outputs, 2).to(q.dtype), kept, there
