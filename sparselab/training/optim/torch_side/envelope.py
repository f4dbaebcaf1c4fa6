"""The sparse envelope function of non-negative numbers, and its proximal step. Imports torch.

S_k is the largest convex function below "half the squares' sum where at most k are not zero, else infinite":
``S_k(a) = min over u in [0, 1]^m with sum u <= k of half the sum of a_j^2 / u_j``. Both functions here look at norms of groups,
from which the weighted group form follows (arXiv 2212.12921): ``a_j = sqrt(d_j) |theta_j|``.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 100
"""Halvings of the bisection: more than float64 can tell apart."""


def envelope(a: Tensor, k: int) -> float:
    """S_k of ``a`` (m,). Closed form: the N largest by themselves, the squared sum of the others over 2 (k - N)."""
    a = a.detach().double().abs().sort(descending=True).values
    if int((a > 0).sum()) <= k:
        return float(a.square().sum()) / 2
    tails = a.flip(0).cumsum(0).flip(0)[:k]  # of entry N and all after it
    room = torch.arange(k, 0, -1, dtype=a.dtype, device=a.device)
    n = int(
        (a[:k] * room <= tails).to(torch.int8).argmax()
    )  # the first N whose next entry is below the level of the rest
    return float(a[:n].square().sum() / 2 + tails[n].square() / (2 * (k - n)))


def factors(x: Tensor, lam: float, k: int, d: Tensor | None = None, solver: str = "sort") -> Tensor:
    """Return the factors that the proximal step of ``lam`` times the function has for each group, (m,), float64.

    x: norms of the groups, at least 0. d: their weights, above 0; None: 1. A group that is zero stays so (factor 0).

    With at most k groups that are not zero it is 1 / (1 + lam d_j). Else u_j = clip(a_j eta - lam d_j, 0, 1) with the eta that
    makes them sum to k, and u_j / (lam d_j + u_j).
    """
    x = x.detach().double()
    d = torch.ones_like(x) if d is None else d.double()
    there = x > 0
    if lam == 0:
        return there.double()
    if int(there.sum()) <= k:
        return there / (1 + lam * d)
    found = torch.zeros_like(x)
    a, c = d[there].sqrt() * x[there], lam * d[there]
    eta = (by_bisection if solver == "bisect" else by_sorting)(a, c, k)
    u = (a * eta - c).clamp(0, 1)
    found[there] = u / (c + u)
    return found


def by_sorting(a: Tensor, c: Tensor, k: int) -> float:
    """The eta at which the sum of clip(a_j eta - c_j, 0, 1) is k: 2m break points in order, a line between two of them.

    Sums are taken anew at the log(2m) points looked at: slopes added up from the first would carry rounding errors over the
    whole width, which is vast where some groups are tiny.
    """
    breaks, order = torch.cat([(c + 1) / a, c / a]).sort(stable=True)  # of equal ones the ends come first
    ends = (order < len(a)).cumsum(0)  # clips that have reached 1; the others among those passed have left 0
    level = (ends == k) & (torch.arange(1, len(breaks) + 1, device=ends.device) == 2 * k)
    if bool(level.any()):  # k are 1 and the rest 0, exactly: sums of slopes would be a rounding error off
        return float(breaks[int(level.to(torch.int8).argmax())])
    low, high = 0, len(breaks) - 1  # positions: the sum is below k at the first and, all being 1, above it at the last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if float((a * breaks[middle] - c).clamp(0, 1).sum()) < k else (low, middle)
    begin = breaks[low]
    u = (a * begin - c).clamp(0, 1)
    slope = float(a[(c / a <= begin) & ((c + 1) / a > begin)].sum())
    return min(float(begin) + ((k - float(u.sum())) / slope if slope > 0 else 0.0), float(breaks[high]))


def by_bisection(a: Tensor, c: Tensor, k: int) -> float:
    """Return the same by halving an interval that holds it. a, c: (groups,)."""
    low, high = float((c / a).min()), float(((c + 1) / a).max())
    for _ in range(STEPS):
        middle = (low + high) / 2
        if float((a * middle - c).clamp(0, 1).sum()) < k:
            low = middle
        else:
            high = middle
    return high
