"""Whole units chosen by the scales of batch normalisation: network slimming, and the masks of MaskSparsity."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import RunFailed
from sparselab.core.options import Options
from sparselab.weights.capabilities import FindsCounts, KnowsCounts, ReadsScales
from sparselab.weights.count import keep_count
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


@METHODS.register("slimming")
class Slimming(ReadsScales, FindsCounts, KnowsCounts, Method):
    """Keep the units whose norms have the largest scales |gamma| (Liu et al. 2017; MaskSparsity, arXiv 2201.06776, section 3).

    ``select`` says how many: ``ratio`` ranks all units of the network together and removes the share of ``sparsity``, ``layer``
    the same share of every layer; ``threshold`` keeps |gamma| > ``threshold``, ``energy`` drops the smallest of a layer whose
    squares together stay under the share ``energy`` of the layer's: there the sparsity is an outcome, whatever was asked for.
    At least ``least`` units of every layer stay. Layers of one residual stream get one mask (:func:`common`).

    It trains nothing: the penalty that makes scales small is ``loss=[norm_scales]``.
    """

    class Options(Options):
        select: Literal["ratio", "layer", "threshold", "energy"] = Field(
            description="ratio (of all units), layer (of each layer's), threshold or energy"
        )
        threshold: float = Field(ge=0, description="for select=threshold: what |gamma| has to exceed, at least 0")
        energy: float = Field(ge=0, lt=1, description="for select=energy: share of a layer's squares that goes, 0 to 1")
        least: int = Field(ge=1, description="units of every layer that stay, at least 1")
        streams: Literal["vote", "union"] = Field(
            description="which units of a residual stream go: vote, or union (those of any layer)"
        )

    options: Options
    patterns = patterns_where(lambda pattern: pattern.whole, whole=True, shared=True)
    schedules = ("constant", "one_shot")

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        scale = _scale(slot)
        return scale.abs().view(-1, *[1] * (slot.mask.ndim - 1)).expand_as(slot.mask)

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        """Choose the units of all layers: they are ranked together, and those of a stream have to agree."""
        import torch

        sizes = {slot.name: _scale(slot).abs() for slot in slots}
        if broken := next((name for name, size in sizes.items() if not bool(size.isfinite().all())), None):
            raise RunFailed(f"{broken}: scales behind it hold NaN or infinite values")
        stay = self.stay(sizes, {slot.name: slot.pattern.sparsity.density for slot in slots})
        streams: dict[str, list[str]] = {}
        for slot in slots:
            if slot.layer.adds:
                streams.setdefault(slot.layer.adds, []).append(slot.name)
        for stream, members in streams.items():
            gone = common(torch.stack([~stay[name] for name in members]), self.options.streams)
            if int((~gone).sum()) < self.options.least:
                problem = f"the layers of {stream} would leave {int((~gone).sum())} of its {gone.numel()} units"
                raise RunFailed(f"method=slimming: {problem} — ask for less, or write method.streams=vote")
            stay.update(dict.fromkeys(members, ~gone))
        self.chosen = stay

    def stay(self, sizes: Mapping[str, Tensor], densities: Mapping[str, float]) -> dict[str, Tensor]:
        """The units (bool) of each layer that its own scales would keep. sizes: |gamma| by layer."""
        from sparselab.weights.select import largest

        o = self.options
        if o.select == "ratio":
            wanted = sum(Fraction(repr(densities[name])) * size.numel() for name, size in sizes.items())
            return ranked(sizes, floor(wanted + Fraction(1, 2)), o.least)
        found = {}
        for name, size in sizes.items():
            if o.select == "layer":
                kept = max(keep_count(size.numel(), densities[name]), min(o.least, size.numel()))
                found[name] = largest(size, kept)
            else:
                limit = o.threshold if o.select == "threshold" else energy_threshold(size, o.energy)
                found[name] = (size > limit) | largest(size, o.least)
        return found

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        units = self.chosen.pop(slot.name)
        return units.view(-1, *[1] * (slot.mask.ndim - 1)).expand_as(slot.mask).contiguous()


def _scale(slot: Slot) -> Tensor:
    assert slot.scale is not None, f"{slot.name}: planning lets no layer without a norm through"
    return slot.scale.data


def ranked(sizes: Mapping[str, Tensor], kept: int, least: int) -> dict[str, Tensor]:
    """Units (bool) by layer: the ``least`` largest of each, and ``kept`` in all, the largest of the rest.

    Of equal sizes the earlier layer's stay, and in a layer the lowest index.
    """
    import torch

    from sparselab.weights.select import largest

    sure = {name: largest(size, least) for name, size in sizes.items()}
    above = 2 * max(float(size.max()) for size in sizes.values()) + 1
    flat = torch.cat([size.masked_fill(sure[name], above) for name, size in sizes.items()])
    chosen = largest(flat, max(kept, sum(int(units.sum()) for units in sure.values())))
    parts = chosen.split([size.numel() for size in sizes.values()])
    return dict(zip(sizes, parts, strict=True))


ALL_SMALL = 1e-3
"""A layer whose largest |gamma| is below this has been made sparse as a whole (released code, netslim/prune.py)."""


def energy_threshold(sizes: Tensor, share: float) -> float:
    """The limit under which lie the smallest of ``sizes`` whose squares together are at most ``share`` of all squares.

    It lies midway between the last that goes and the first that stays; 0 where none goes, 1 where all are tiny
    (:data:`ALL_SMALL`).
    """
    import torch

    ascending = sizes.detach().double().clamp_min(1e-18).sort().values
    if float(ascending[-1]) < ALL_SMALL:
        return 1.0
    energy = ascending.square().cumsum(0)
    first = int(torch.searchsorted(energy, share * energy[-1], right=True))
    return float(ascending[first - 1] + ascending[first]) / 2 if first else 0.0


def common(gone: Tensor, rule: str = "vote") -> Tensor:
    """The units that all layers of a stream lose, bool (units), from those that each would lose, ``gone`` (layers, units).

    vote: a unit goes if enough layers would lose it; enough is the largest number with which as many units go as the layer
    that loses fewest would lose (MaskSparsity's released code, netslim/prune.py). union: if any would.
    """
    votes, fewest = gone.sum(0), int(gone.sum(1).min())
    if rule == "union":
        return votes >= 1
    levels: Sequence[int] = range(gone.shape[0], 0, -1)
    return next(lost for lost in (votes >= level for level in levels) if int(lost.sum()) >= fewest)
