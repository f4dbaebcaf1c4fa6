"""BLASST on a GPU: flash attention whose tiles are skipped where they are read, in Triton. Importing it needs Triton.

The forward pass alone: what is frozen needs no gradient. One program per query tile and head goes through the keys; of a
tile that all rows vote to skip it loads no values and takes no exponential. Never timed: no GPU was at hand.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

NEVER = -1.0e30  # below any score, and finite: infinity less infinity is no number


@triton.jit
def _forward(
    q_ptr, k_ptr, v_ptr, out_ptr, kept_ptr, scale, limit, rows, keys, heads, group, width,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, REVERSE: tl.constexpr, PER_ROW: tl.constexpr,
):  # fmt: skip
    """All tensors contiguous: q, out (n, heads, rows, width); k, v (n, heads / group, keys, width); kept (n * heads, tiles).

    limit: ln(lambda), or ln(a) of lambda = a / L with a row's own number of keys L where PER_ROW.
    """
    tile, head = tl.program_id(0), tl.program_id(1)
    shared = (head // heads) * (heads // group) + (head % heads) // group
    at_q, at_d = tile * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_D)
    there = (at_q < rows)[:, None] & (at_d < width)[None, :]
    q = tl.load(q_ptr + (head * rows + at_q)[:, None] * width + at_d[None, :], mask=there, other=0.0).to(tl.float32)
    last = at_q + (keys - rows)  # the last key that a row sees
    bound = tl.zeros([BLOCK_Q], tl.float32) + limit
    if PER_ROW:
        bound = tl.minimum(limit - tl.log((last + 1).to(tl.float32)), 0.0)
    m = tl.full([BLOCK_Q], NEVER, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    out = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    tiles = tl.cdiv(tl.minimum(tile * BLOCK_Q + BLOCK_Q + keys - rows, keys), BLOCK_K)
    kept = 0
    for step in range(0, tiles):
        j = step
        if REVERSE:
            j = tiles - 1 - step
        at_k = j * BLOCK_K + tl.arange(0, BLOCK_K)
        here = (at_k < keys)[:, None] & (at_d < width)[None, :]
        k = tl.load(k_ptr + (shared * keys + at_k)[:, None] * width + at_d[None, :], mask=here, other=0.0).to(
            tl.float32
        )
        scores = (
            tl.sum(q[:, None, :] * k[None, :, :], 2) if BLOCK_Q < 16 else tl.dot(q, tl.trans(k), input_precision="ieee")
        )
        seen = (at_k[None, :] <= last[:, None]) & (at_q < rows)[:, None]
        scores = tl.where(seen, scores * scale, NEVER)
        peak = tl.max(scores, 1)
        highest = tl.maximum(m, peak)
        wants = (peak > NEVER) & (peak - highest >= bound)  # a row that sees nothing of the tile does not vote
        if tl.max(wants.to(tl.int32), 0) > 0:
            kept += 1
            p = tl.where(seen, tl.exp(scores - highest[:, None]), 0.0)
            shrink = tl.exp(m - highest)
            v = tl.load(v_ptr + (shared * keys + at_k)[:, None] * width + at_d[None, :], mask=here, other=0.0).to(
                tl.float32
            )
            part = tl.sum(p[:, :, None] * v[None, :, :], 1) if BLOCK_Q < 16 else tl.dot(p, v, input_precision="ieee")
            total = total * shrink + tl.sum(p, 1)
            out = out * shrink[:, None] + part
            m = highest
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out_ptr + (head * rows + at_q)[:, None] * width + at_d[None, :], out.to(out_ptr.dtype.element_ty), mask=there
    )
    tl.store(kept_ptr + head * tl.num_programs(0) + tile, kept)


def skip_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, block_q: int, block_k: int,
    *, threshold: float | None = None, a: float | None = None, order: str = "forward",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Causal attention and the number of tiles kept: (n, heads, t, d) and (n, heads, query tiles) int32.

    q: (n, heads, t, d); k, v: (n, kv heads, s, d), the queries being the last positions. ``threshold`` is lambda; ``a``
    gives every row a / L with the number L of keys that it sees (decoding: block_q 1). Raises ValueError where not
    exactly one of the two is given, or a block is no power of two.
    """
    limit = a if threshold is None else threshold
    if limit is None or (threshold is not None and a is not None):
        raise ValueError("give threshold or a, one of the two")
    if block_q & (block_q - 1) or block_k & (block_k - 1):
        raise ValueError(f"blocks of {block_q} and {block_k}: powers of two are needed")
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    n, heads, rows, width = q.shape
    out = torch.empty_like(q)
    tiles = triton.cdiv(rows, block_q)
    kept = torch.empty(n, heads, tiles, dtype=torch.int32, device=q.device)
    _forward[(tiles, n * heads)](
        q, k, v, out, kept, scale, math.log(limit), rows, k.shape[2], heads, heads // k.shape[1],
        width, BLOCK_Q=block_q, BLOCK_K=block_k, BLOCK_D=triton.next_power_of_2(width), REVERSE=order == "reverse",
        PER_ROW=a is not None,
    )  # fmt: skip
    return out, kept
