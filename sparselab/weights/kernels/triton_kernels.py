"""The passes of ``kernels.py`` for CUDA: one launch for all layers, and nothing that the CPU waits for.

Imported only where CUDA tensors ask for it. A launch reads a table of addresses, a row per layer, and one of blocks, which
say where in which layer each program begins; both stay on the device as long as the addresses do. float32 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 2048  # of a block
COLUMNS = 5  # of the table: three addresses, distance between the members of a group, groups or elements


@triton.jit
def _rows(table, blocks):
    block = tl.program_id(0).to(tl.int64)
    layer, first = tl.load(blocks + 2 * block), tl.load(blocks + 2 * block + 1)
    return layer, first, table + layer * 5


@triton.jit
def _n_of_m(
    table, blocks, flags, n, M: tl.constexpr, WIDE: tl.constexpr, GROUPS: tl.constexpr, MAGNITUDE: tl.constexpr
):
    """Counts, for every member, the others of its group that beat it; fewer than n: it stays."""
    layer, first, row = _rows(table, blocks)
    x = tl.load(row).to(tl.pointer_type(tl.float32))
    mask = tl.load(row + 1).to(tl.pointer_type(tl.int8))
    out = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    after, total = tl.load(row + 3), tl.load(row + 4)
    group = first + tl.arange(0, GROUPS)
    start = group // after * after * M + group % after
    member = tl.arange(0, WIDE)
    there = (group < total)[:, None] & (member < M)[None, :]
    at = start[:, None] + member[None, :] * after
    value = tl.load(x + at, mask=there, other=0.0)
    score = tl.abs(value) if MAGNITUDE else value
    beaten = tl.zeros([GROUPS, WIDE], dtype=tl.int32)
    for other in range(M):
        rival = tl.load(x + start + other * after, mask=group < total, other=0.0)
        rival = (tl.abs(rival) if MAGNITUDE else rival)[:, None]
        beaten += ((rival > score) | ((rival == score) & (other < member)[None, :])).to(tl.int32)
    kept = beaten < n
    tl.debug_barrier()  # out may be x: everybody has read before anybody writes
    tl.store(mask + at, kept.to(tl.int8), mask=there)
    tl.store(out + at, value * kept.to(tl.float32), mask=there)
    broken = tl.max(tl.max((there & ~(tl.abs(value) < float("inf"))).to(tl.int32), axis=1), axis=0)
    tl.atomic_or(flags + layer, broken, mask=broken > 0)


@triton.jit
def _masked(table, blocks, BLOCK: tl.constexpr):
    _layer, first, row = _rows(table, blocks)
    x = tl.load(row).to(tl.pointer_type(tl.float32))
    mask = tl.load(row + 1).to(tl.pointer_type(tl.int8))
    out = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    at = first + tl.arange(0, BLOCK)
    there = at < tl.load(row + 4)
    kept = tl.load(mask + at, mask=there, other=0).to(tl.float32)
    tl.store(out + at, tl.load(x + at, mask=there, other=0.0) * kept, mask=there)


@triton.jit
def _add_pruned(table, blocks, factor, BLOCK: tl.constexpr):
    _layer, first, row = _rows(table, blocks)
    x = tl.load(row).to(tl.pointer_type(tl.float32))
    mask = tl.load(row + 1).to(tl.pointer_type(tl.int8))
    out = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    at = first + tl.arange(0, BLOCK)
    there = at < tl.load(row + 4)
    gone = 1.0 - tl.load(mask + at, mask=there, other=0).to(tl.float32)
    weight = tl.load(x + at, mask=there, other=0.0)
    grad = tl.load(out + at, mask=there, other=0.0)
    tl.store(out + at, grad + factor * weight * gone, mask=there)  # a product with 0 or 1: fused or not, the same


@lru_cache(maxsize=64)
def _tables(rows: tuple[tuple[int, ...], ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows, and (layer, first) of every block of ``size``, on the device."""
    blocks = [(layer, first) for layer, row in enumerate(rows) for first in range(0, row[COLUMNS - 1], size)]
    return torch.tensor(rows).to(device, non_blocking=True), torch.tensor(blocks).to(device, non_blocking=True)


def n_of_m(
    scores: Sequence[Tensor], afters: Sequence[int], n: int, m: int, magnitude: bool, outs: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Make the masks of layers that lie in memory as (rows, m, after).

    Their products with the scores go into ``outs``. Returns the masks, and a flag per layer (int32, on the device): 1 where a
    score is not finite.
    """
    masks = [torch.empty_like(score, dtype=torch.bool) for score in scores]
    wide = triton.next_power_of_2(m)
    size = max(1, ELEMENTS // wide)
    rows = tuple(
        (score.data_ptr(), mask.data_ptr(), out.data_ptr(), after, score.numel() // m)
        for score, mask, out, after in zip(scores, masks, outs, afters, strict=True)
    )
    flags = torch.zeros(len(rows), dtype=torch.int32, device=scores[0].device)
    table, blocks = _tables(rows, size, scores[0].device)
    _n_of_m[(len(blocks),)](table, blocks, flags, n, M=m, WIDE=wide, GROUPS=size, MAGNITUDE=magnitude)
    return masks, flags


def masked(values: Sequence[Tensor], masks: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """Write ``value * mask`` into ``out``, for all.

    Args:
        values: (*weight) float32 each
        masks: (*weight) bool each
        outs: (*weight) float32 each
    """
    table, blocks = _tables(_addresses(values, masks, outs), ELEMENTS, values[0].device)
    _masked[(len(blocks),)](table, blocks, BLOCK=ELEMENTS)


def add_pruned(grads: Sequence[Tensor], weights: Sequence[Tensor], masks: Sequence[Tensor], factor: float) -> None:
    """``grad += factor * weight * (1 - mask)`` for all.

    Args:
        grads: (*weight) float32 each, changed in place
        weights: (*weight) float32 each
        masks: (*weight) bool each
        factor: as in :mod:`sparselab.weights.kernels.dispatch`
    """
    table, blocks = _tables(_addresses(weights, masks, grads), ELEMENTS, grads[0].device)
    _add_pruned[(len(blocks),)](table, blocks, factor, BLOCK=ELEMENTS)


def _addresses(
    values: Sequence[Tensor], masks: Sequence[Tensor], outs: Sequence[Tensor]
) -> tuple[tuple[int, ...], ...]:
    return tuple(
        (value.data_ptr(), mask.data_ptr(), out.data_ptr(), 1, value.numel())
        for value, mask, out in zip(values, masks, outs, strict=True)
    )
