"""The largest of many: exact counts, ties by index, no full sort.

Everything here is deterministic, and nothing here looks for NaN: callers do (:func:`all_finite`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import CDLL, c_int64
from math import floor, sqrt

import numpy as np
import torch
from torch import Tensor

from sparselab.weights.kernels.dispatch import serving

PAIRWISE_LIMIT = 64
"""Group size up to which comparing all pairs beats a selection (measured on one CPU core: even near 90)."""

STRIDED_LIMIT = 8
"""Group size up to which reading a group's columns in place beats copying them apart first (same measurement)."""

SAMPLE = 1 << 14
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return True if no element is NaN or infinite.

    Args:
        tensors: any shapes, on one device

    Returns:
        () bool on that device; one wait serves many layers.
    """
    ends = [torch.stack(tensor.detach().aminmax()).double() for tensor in tensors]  # NaN propagates through aminmax
    return torch.cat(ends).isfinite().all()


def largest(values: Tensor, k: int, magnitude: bool = False) -> Tensor:
    """Mask the ``k`` largest of a tensor; of equal ones the lowest index is kept.

    Args:
        values: (n,) float, finite
        k: how many; 0 and less give none, n and more all
        magnitude: compare sizes, without sign

    Returns:
        (n,) bool with exactly ``k`` True.
    """
    if k <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if k >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    kernels = serving(values)
    if kernels is not None:
        return _largest_by_key(kernels, values, k, magnitude)
    values = values.abs() if magnitude else values
    if values.device.type == "cpu":
        return trim_on_host(values, _kth_by_sample(values, k), k)
    return trim_on_device(values, values.topk(k, sorted=False).values.amin(0, keepdim=True), k, dim=0)


def largest_in_groups(groups: Tensor, n: int) -> Tensor:
    """Mask of the ``n`` largest along dimension 1 of (before, M, after); of equal ones those with the lowest index.

    Args:
        groups: (before, M, after) float, finite
        n: how many of every M, from 1 to M

    Returns:
        (before, M, after) bool.
    """
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


def _largest_by_key(kernels: CDLL, values: Tensor, k: int, magnitude: bool) -> Tensor:
    """:func:`largest` in two passes over the values and one over the few that a sample cannot decide."""
    mask = torch.empty_like(values, dtype=torch.bool)
    place, total = values.data_ptr(), values.numel()
    threshold, reached = _kth_key(kernels, values, k, magnitude)
    kernels.above(place, mask.data_ptr(), total, threshold, reached - k, magnitude, torch.get_num_threads())
    return mask


def _kth_key(kernels: CDLL, values: Tensor, k: int, magnitude: bool) -> tuple[int, int]:
    """The ``k``-th largest key (``kernels.c``) and how many are at least as large."""
    place, total = values.data_ptr(), values.numel()
    # numpy partitions integers several times as fast as torch.
    sample = _keys(values[:: max(1, total // SAMPLE)], magnitude).numpy()
    first, last = _bracket(k / total, len(sample))
    ends = [len(sample) - 1 - place for place in (last, first) if 0 <= place < len(sample)]
    if ends:
        sample.partition(ends)
    high = int(sample[-1 - first]) if first >= 0 else INT_MAX
    low = int(sample[-1 - last]) if last < len(sample) else INT_MIN
    between, counts = torch.empty(total // 16 + 2 * len(sample), dtype=torch.int32), (c_int64 * 2)()
    kernels.bracket(place, total, low, high, magnitude, between.data_ptr(), len(between), counts)
    above, inside = counts
    if above < k <= above + inside <= above + len(between):
        place_of_it = inside - (k - above)
        candidates = np.partition(between[:inside].numpy(), place_of_it)
        key = int(candidates[place_of_it])
        return key, above + inside - place_of_it + int((candidates[:place_of_it] == key).sum())
    return _kth_key_by_digits(kernels, values, k, magnitude)


def _kth_key_by_digits(kernels: CDLL, values: Tensor, k: int, magnitude: bool) -> tuple[int, int]:
    """:func:`_kth_key` for data that fool a sample: a histogram of eleven bits at a time, three passes, no copy."""
    prefix, above = 0, 0
    for shift, bits in ((21, 11), (10, 11), (0, 10)):
        counts = (c_int64 * (1 << bits))()
        kernels.histogram(values.data_ptr(), values.numel(), prefix, shift, bits, magnitude, counts)
        digit = len(counts) - 1
        while above + counts[digit] < k:
            above += counts[digit]
            digit -= 1
        prefix = prefix << bits | digit
    return prefix + INT_MIN, above + counts[digit]


def _keys(values: Tensor, magnitude: bool) -> Tensor:
    """int32 that orders as float32 values do (or their sizes), as ``kernels.c`` has it."""
    bits = (values + 0.0).view(torch.int32)  # -0 is 0
    return bits & INT_MAX if magnitude else bits ^ ((bits >> 31) & INT_MAX)


def _bracket(share: float, size: int) -> tuple[int, int]:
    """Between which places of a sample, largest first, the element of this rank lies but for four standard deviations."""
    centre, margin = share * size, 4 * sqrt(size * share * (1 - share)) + 2
    return floor(centre - margin), floor(centre + margin)


def _kth_by_sample(values: Tensor, k: int) -> Tensor:
    """The ``k``-th largest value. A regular sample brackets it, and only what lies in the bracket is ranked.

    Two to five times faster than ``kthvalue`` on millions of weights; where the bracket misses (periodic data can
    fool a regular sample) everything is ranked, so the answer is exact either way.
    """
    total = values.numel()
    if total <= 4 * SAMPLE:
        return values.kthvalue(total - k + 1).values
    sample = values[:: total // SAMPLE].sort(descending=True).values
    first, last = _bracket(k / total, len(sample))
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
    """Mask of ``values >= threshold`` cut to ``k``: of the values at the threshold the last ones go. Reads counts.

    Args:
        values: (n,) float, finite
        threshold: () the ``k``-th largest value
        k: how many to keep

    Returns:
        (n,) bool.
    """
    mask = values >= threshold
    surplus = int(mask.count_nonzero()) - k
    if surplus:
        ties = (values == threshold).nonzero().squeeze(1)
        mask[ties[-surplus:]] = False
    return mask


def trim_on_device(values: Tensor, threshold: Tensor, k: int, dim: int) -> Tensor:
    """:func:`trim_on_host` along ``dim`` without reading a count, so that an accelerator need not be waited for.

    Args:
        values: any shape, finite
        threshold: the ``k``-th largest along ``dim``, which has length 1
        k: how many to keep along ``dim``
        dim: the axis of a group

    Returns:
        The shape of ``values``, bool.
    """
    mask = values >= threshold
    ties = values == threshold
    spared = ties.sum(dim, keepdim=True) - mask.sum(dim, keepdim=True) + k
    return mask & ~(ties & (ties.cumsum(dim) > spared))
