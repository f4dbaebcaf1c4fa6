"""Metrics of the weights themselves: how many are next to nothing, and whether two cells keep the same ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sparselab.core.data_types import Pair
from sparselab.core.errors import Issue, RunFailed
from sparselab.core.options import Options
from sparselab.running.parts import pending
from sparselab.training.given_masks import file_issues
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from sparselab.core.model_spec import Layer

FEED_FORWARD = "ff"  # the role


@METRICS.register("near_zero")
class NearZero(Metric):
    """Share of weights that lie near zero, for each level x of ``below``.

    ``near_zero_<x>``: the share with |w| <= x standard deviations of their matrix (arXiv 2306.03805 counts "zero weights" and
    gives no threshold), and, where some layers are feed-forward, ``near_zero_<x>_ff``, the share of these that lies there. At
    level 0 it counts exact zeros.

    Weights are those that the cell's targets name, of a dense cell too.
    """

    needs: ClassVar[Pair | None] = None

    class Options(Options):
        below: list[Annotated[float, Field(ge=0)]] = Field(
            min_length=1, description="levels in standard deviations of a matrix, such as [0.001, 0.01]"
        )

    def measure(self, subject: Subject) -> dict[str, float]:
        total = sum(weight.numel() for weight in subject.weights.values())
        feed_forward = any(FEED_FORWARD in layer.roles for layer in subject.weights)
        found: dict[str, float] = {}
        for level in self.options.below:
            near = {layer: near_zero(weight, level) for layer, weight in subject.weights.items()}
            count = sum(near.values())
            found[f"near_zero_{level:g}"] = count / total
            if feed_forward and count:
                inside = sum(number for layer, number in near.items() if FEED_FORWARD in layer.roles)
                found[f"near_zero_{level:g}_ff"] = inside / count
        return found


def near_zero(weight: Tensor, level: float) -> int:
    """Count entries that are at most ``level`` standard deviations away from 0.

    Args:
        weight: any shape
        level: in standard deviations of all entries around their mean
    """
    weight = weight.detach().float()
    return int((weight.abs() <= level * weight.std(correction=0)).sum())


@METRICS.register("mask_cosine")
class MaskCosine(Metric):
    """Cosine of the cell's masks and those of another cell, as vectors of zeros and ones over all layers.

    ``mask_cosine`` = |A and B| / sqrt(|A| |B|). ``mask_cosine_chance``: what two random masks of these densities have on
    average.
    """

    needs: ClassVar[Pair | None] = None

    class Options(Options):
        masks: str | None = Field(
            description="a masks.safetensors of this network, or {cell: …} of a cell that makes it"
        )

    def files(self) -> dict[str, str]:
        return {"masks": self.options.masks} if self.options.masks is not None else {}

    def against(self, layers: list[Layer], dependencies: Mapping[str, str]) -> list[Issue]:
        where = f"metric.{self.name}"
        if self.options.masks is None:
            return [Issue(f"{where}.masks", "names no masks", "write a masks.safetensors, or {cell: …}")]
        if not layers:
            return [Issue(where, "a dense cell has no masks", "write a sparsity, or leave the metric out")]
        if pending(self.options.masks, dependencies):
            return []
        return file_issues(self.options.masks, f"{where}.masks", layers)

    def measure(self, subject: Subject) -> dict[str, float]:
        from sparselab.storage.tensors import load_masks

        theirs = load_masks(Path(self.options.masks).expanduser())
        if theirs.keys() != subject.masks.keys():
            name = min(theirs.keys() ^ subject.masks.keys())
            raise RunFailed(
                f"metric.{self.name}: {name} has a mask in one of the two cells alone — give both the same targets"
            )
        pairs = [(mask, theirs[name].to(mask.device)) for name, mask in subject.masks.items()]
        return {"mask_cosine": cosine(pairs), "mask_cosine_chance": by_chance(pairs)}


def cosine(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return |A and B| / sqrt(|A| |B|) of two masks; 0 where one of them keeps nothing.

    Args:
        pairs: two bool masks of one shape, for each layer
    """
    both = sum(int((a & b).sum()) for a, b in pairs)
    sizes = [sum(int(pair[i].sum()) for pair in pairs) for i in (0, 1)]
    return both / math.sqrt(sizes[0] * sizes[1]) if all(sizes) else 0.0


def by_chance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The cosine that masks of these sizes have on average where every place is as likely as any other.

    Args:
        pairs: as for :func:`cosine`
    """
    total = sum(a.numel() for a, _ in pairs)
    densities = [sum(int(pair[i].sum()) for pair in pairs) / total for i in (0, 1)]
    return math.sqrt(densities[0] * densities[1])
