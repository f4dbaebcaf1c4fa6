"""BLASST: tiles whose largest score lies far below the running maximum are dropped (arXiv 2512.12087)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from sparselab.core.errors import RunFailed
from sparselab.core.options import off
from sparselab.inference.attention.rule import ATTENTIONS, PHASES, Rule, RuleOptions, Tiles

if TYPE_CHECKING:
    from torch import Tensor


# What Model-Optimizer tries; the paper names no grid.
TRIALS = (
    1e-6,
    5e-6,
    1e-5,
    5e-5,
    1e-4,
    5e-4,
    1e-3,
    5e-3,
    1e-2,
    2e-2,
    5e-2,
    0.1,
    0.2,
    0.3,
    0.5,
    0.7,
    0.8,
    0.9,
    0.95,
    0.99,
)


@ATTENTIONS.register("blasst")
class BLASST(Rule):
    """Skips a tile where ``rowmax(S_j) - max(S_1 … S_j) < ln(lambda)`` holds in every row of it (Algorithm 1).

    One lambda for all layers and heads, nothing exempt: ``threshold``, or ``scale / L`` (at most 1) with the number L of
    keys of the call, or fitted to a sparsity. The maximum is the running one in the order of the tiles, not the final one.
    """

    class Options(RuleOptions):
        order: Literal["forward", "reverse"] = Field(description="forward or reverse")
        threshold: float | None = Field(gt=0, lt=1, description="lambda, in (0, 1), or null")
        scale: float | None = Field(gt=0, description="a of lambda = a / L, above 0, or null")
        fit: Literal["inverse", "exponential", "fixed"] = Field(
            description="inverse, exponential or fixed: what is fitted to a sparsity"
        )
        points: Literal["lengths", "samples"] = off(
            "lengths",
            description="what an exponential fit goes through: a point of each length, or of each window",
        )
        lengths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="tokens of calibration windows")
        trials: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
            min_length=2, description="values of lambda, each in (0, 1)"
        )
        tolerance: float = Field(
            gt=0, le=1, description="a length counts in an inverse fit if it comes that near the target"
        )

        @model_validator(mode="after")
        def _one_limit(self) -> BLASST.Options:
            if self.threshold is not None and self.scale is not None:
                raise ValueError("threshold and scale are two answers to one question")
            if self.points == "samples" and self.fit != "exponential":
                raise ValueError("points=samples is for fit=exponential")
            return self

    options: Options
    calibrated = True

    def __init__(self, options: Options, sparsity: float | None = None):
        super().__init__(options, sparsity)
        # ln(lambda) of a call over L keys is `limit` less ln(L), or `limit` itself where lambda is fixed
        self.fixed = options.threshold is not None or (options.scale is None and options.fit == "fixed")
        self.own_limit = next((key for key in ("threshold", "scale") if getattr(options, key) is not None), None)
        given = options.threshold or options.scale
        self.limits = {} if given is None else dict.fromkeys(PHASES, math.log(given))

    def calibration_lengths(self) -> list[int]:
        return [] if self.own_limit else self.options.lengths

    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        if phase not in self.limits:
            raise RunFailed(f"attention={self.name} was not calibrated for {phase} — give a threshold, or calibrate")
        gap = self.gap(tiles)
        # Over fewer than `scale` keys lambda would exceed 1 and skip everything: it is capped there, so that a row's
        # first tile and every new maximum stay. A fixed lambda is below 1 anyway.
        limit = self.limits[phase] if self.fixed else (self.limits[phase] - tiles.lengths.log()).clamp(max=0.0)[:, None]
        return tiles.valid & tiles.by_query_tile(gap >= limit)

    def gap(self, tiles: Tiles) -> Tensor:
        """(n, heads, rows, key tiles): the tile's largest score less the running maximum, at most 0.

        Minus infinity where the row sees no key of the tile.
        """
        peak = tiles.peak.flip(-1) if self.options.order == "reverse" else tiles.peak
        gap = (peak - peak.cummax(-1).values).nan_to_num(
            nan=-math.inf, neginf=-math.inf
        )  # -inf less -inf: sees nothing
        return gap.flip(-1) if self.options.order == "reverse" else gap
