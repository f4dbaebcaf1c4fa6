"""The largest of many: exact counts, ties by index, no full sort.

Everything here is deterministic, and nothing here looks for NaN: callers do (:func:`all_finite`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor

PAIRWISE_LIMIT = 64
"""Group size up to which comparing all pairs beats a selection (measured on one CPU core: even near 90)."""

STRIDED_LIMIT = 8
"""Group size up to which reading a group's columns in place beats copying them apart first (same measurement)."""

SAMPLE = 1 << 14


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether no element is NaN or infinite: a 0-dim bool on the tensors' device, so one wait serves many layers."""
    ends = [torch.stack(tensor.detach().aminmax()).double() for tensor in tensors]  # NaN propagates through aminmax
    return torch.cat(ends).isfinite().all()


def largest(values: Tensor, k: int) -> Tensor:
    """Mask of the ``k`` largest of a 1-D tensor; of equal ones those with the lowest index."""
    if k <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if k >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if values.device.type == "cpu":
        return trim_on_host(values, _kth_by_sample(values, k), k)
    return trim_on_device(values, values.topk(k, sorted=False).values.amin(0, keepdim=True), k, dim=0)


def largest_in_groups(groups: Tensor, n: int) -> Tensor:
    """Mask of the ``n`` largest along dimension 1 of (before, M, after); of equal ones those with the lowest index."""
    m = groups.shape[1]
    if m > PAIRWISE_LIMIT:
        return trim_on_device(groups, groups.topk(n, dim=1, sorted=False).values.amin(1, keepdim=True), n, dim=1)
    columns = groups if m <= STRIDED_LIMIT else groups.transpose(0, 1).contiguous().transpose(0, 1)
    mask = torch.empty(groups.shape, dtype=torch.bool, device=groups.device)
    _win_counts(columns.unbind(1), mask.unbind(1), n)
    return mask


def _win_counts(columns: tuple[Tensor, ...], out: tuple[Tensor, ...], n: int) -> None:
    """An element is kept if it beats M - N others of its group. The lower index wins a tie, so no two counts agree."""
    m = len(columns)
    # An element beats all before it until one of them turns out to win.
    wins = [torch.full(column.shape, j, dtype=torch.uint8, device=column.device) for j, column in enumerate(columns)]
    for i in range(m):
        for j in range(i + 1, m):
            won = (columns[i] >= columns[j]).view(torch.uint8)
            wins[i] += won
            wins[j] -= won
    for count, kept in zip(wins, out, strict=True):
        torch.ge(count, m - n, out=kept)


def _kth_by_sample(values: Tensor, k: int) -> Tensor:
    """The ``k``-th largest value. A regular sample brackets it, and only what lies in the bracket is ranked.

    Two to five times faster than ``kthvalue`` on millions of weights; where the bracket misses (periodic data can
    fool a regular sample) everything is ranked, so the answer is exact either way.
    """
    total = values.numel()
    if total <= 4 * SAMPLE:
        return values.kthvalue(total - k + 1).values
    sample = values[:: total // SAMPLE].sort(descending=True).values
    centre, margin = k / total * len(sample), 2 * sqrt(len(sample)) + 1  # four standard deviations of a sampled rank
    first, last = int(centre - margin), int(centre + margin)
    between = torch.ones_like(values, dtype=torch.bool)
    above = 0
    if first >= 0:
        between = values <= sample[first]
        above = total - int(between.count_nonzero())
    if last < len(sample):
        between &= values >= sample[last]
    candidates = values[between]
    if above < k <= above + len(candidates):
        return candidates.kthvalue(len(candidates) - (k - above) + 1).values
    return values.kthvalue(total - k + 1).values


def trim_on_host(values: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Mask of ``values >= threshold`` cut to ``k``: of the values at the threshold the last ones go. Reads counts."""
    mask = values >= threshold
    surplus = int(mask.count_nonzero()) - k
    if surplus:
        ties = (values == threshold).nonzero().squeeze(1)
        mask[ties[-surplus:]] = False
    return mask


def trim_on_device(values: Tensor, threshold: Tensor, k: int, dim: int) -> Tensor:
    """:func:`trim_on_host` along ``dim`` without reading a count, so that an accelerator need not be waited for."""
    mask = values >= threshold
    ties = values == threshold
    spared = ties.sum(dim, keepdim=True) - mask.sum(dim, keepdim=True) + k
    return mask & ~(ties & (ties.cumsum(dim) > spared))
