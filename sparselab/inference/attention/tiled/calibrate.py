"""Fits a threshold to a sparsity: measured against the full running maximum while everything is still computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.inference.attention.blasst import BLASST
from sparselab.inference.attention.rule import Tiles
from sparselab.inference.attention.tiled.attach import Attached

LOW, HIGH = 0.10, 0.90  # Model-Optimizer fits its exponential to sparsities between these
TAIL = 1 / 8  # of a window, while decoding: its last rows, which see about as many keys as the window has


@dataclass
class Curve:
    """How many visible tiles each trial value of lambda would skip, in calls over ``length`` keys."""

    length: int
    skipped: Tensor
    valid: int = 0

    @property
    def sparsity(self) -> np.ndarray:
        return self.skipped.double().cpu().numpy() / max(self.valid, 1)


@dataclass
class Measure(BLASST):
    """The rule as a measuring instrument: keeps everything, and counts what each trial would have skipped."""

    source: BLASST
    curves: dict[int | tuple[int, int], Curve] = field(
        default_factory=dict
    )  # by length, and by window where each is a point
    window: int = 0  # the first one of the batch under way
    tail: float = 1.0  # share of the rows, the last ones, that count

    def __post_init__(self) -> None:
        super().__init__(self.source.options, None)
        self._trials = torch.tensor(self.options.trials).double().log().float()

    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        margin, valid = tiles.by_query_tile(self.gap(tiles)), tiles.valid
        length = int(tiles.lengths.max())
        first = margin.shape[2] - math.ceil(self.tail * margin.shape[2])
        parts = [slice(None)] if self.options.points == "lengths" else [slice(i, i + 1) for i in range(len(margin))]
        for i, part in enumerate(parts):
            found = margin[part, :, first:][valid[part, :, first:]].sort().values
            key = length if self.options.points == "lengths" else (length, self.window + i)
            curve = self.curves.setdefault(key, Curve(length, torch.zeros(len(self._trials), dtype=torch.int64)))
            curve.skipped += torch.searchsorted(found, self._trials.to(found.device)).cpu()  # how many lie below
            curve.valid += found.numel()
        return valid


def inverse_fit(points: Mapping[int, float]) -> float:
    """a of lambda = a / L through {L: lambda}, least squares without intercept (Algorithm 2)."""
    lengths = np.array([float(length) for length in points])
    return float((np.array(list(points.values())) / lengths).sum() / (1 / lengths**2).sum())


def exponential_fit(scales: Iterable[float], sparsities: Iterable[float]) -> tuple[float, float]:
    """(a, b) of lambda * L = a exp(b s), least squares with a >= 0 and 0 <= b <= 20 (Model-Optimizer)."""
    from scipy.optimize import curve_fit

    found, _ = curve_fit(
        lambda s, a, b: a * np.exp(b * s), np.array(list(sparsities)), np.array(list(scales)),
        p0=(1.0, 5.0), bounds=((0, 0), (np.inf, 20)), maxfev=10_000,
    )  # fmt: skip
    return float(found[0]), float(found[1])


def fit(rule: BLASST, curves: Iterable[Curve], target: float) -> float:
    """ln(a), or ln(lambda) of a fixed one, so that about ``target`` of the tiles are skipped.

    Raises :class:`RunFailed` where no trial comes near it.
    """
    curves, options = list(curves), rule.options
    trials = np.array(options.trials)
    if options.fit == "exponential":
        pairs = [(x * c.length, s) for c in curves for x, s in zip(trials, c.sparsity, strict=True) if LOW <= s <= HIGH]
        if len(pairs) < 3:
            raise RunFailed(
                "attention.trials: too few of them skip 10 to 90 % of the tiles — try others, or other lengths"
            )
        a, b = exponential_fit(*zip(*pairs, strict=True))
        return math.log(a) + b * target
    best = {
        c.length: (float(trials[i]), float(c.sparsity[i])) for c in curves for i in [abs(c.sparsity - target).argmin()]
    }
    if options.fit == "fixed":
        return math.log(best[sorted(best)[len(best) // 2]][0])
    near = {length: trial for length, (trial, s) in best.items() if abs(s - target) < options.tolerance}
    if not near:
        length, (trial, s) = min(best.items(), key=lambda item: abs(item[1][1] - target))
        nearest = (
            f"lambda={trial:g} skips {100 * s:.0f} % of {length} tokens' tiles, the nearest to {100 * target:.0f} %"
        )
        raise RunFailed(f"attention.trials: {nearest} — give other trials, longer windows or smaller tiles")
    return math.log(inverse_fit(near))


def calibrate(
    model: nn.Module,
    logits_of: Callable[[Tensor], Tensor],
    rule: BLASST,
    windows: Callable[[int], Iterable[Tensor]],
    phases: Iterable[str],
) -> dict[str, float]:
    """Fit a rule's limit.

    Everything is computed densely; a pass over the windows of a length serves all trials.

    Args:
        model: the network
        logits_of: (n, t) int64 to (n, t, vocabulary)
        rule: whose limit is fitted
        windows: (n, length) int64 batches for one of the rule's lengths
        phases: of ``prefill`` and ``decode``

    Returns:
        The rule's limit for each phase (see :attr:`BLASST.limits`).
    """
    assert rule.sparsity is not None
    limits = {}
    for phase in phases:
        measure = Measure(rule, tail=TAIL if phase == "decode" else 1.0)
        with Attached(model, measure, phase):
            for length in rule.options.lengths:
                measure.window = 0
                for tokens in windows(length):
                    logits_of(tokens)
                    measure.window += len(tokens)
        limits[phase] = fit(rule, measure.curves.values(), rule.sparsity)
    return limits
