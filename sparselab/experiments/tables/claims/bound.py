"""A cell against a number that the paper states."""

from __future__ import annotations

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point, Spot, weighted
from sparselab.experiments.tables.statistics import Contrast


@CLAIMS.register("bound")
class Bounded(Claim):
    """``a`` lies between ``low`` and ``high``, in units of the table's metric (or of the claim's own)."""

    a: Point
    low: float | None = Field(None, description="the lower end; without it: open")
    high: float | None = Field(None, description="the upper end; without it: open")

    @model_validator(mode="after")
    def _has_an_end(self) -> Bounded:
        if self.low is None and self.high is None:
            raise ValueError("a bound needs low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def points(self) -> list[Point]:
        return [self.a]

    def bounds(self, layout: Layout) -> list[Bound]:
        def times(factor: int, spot: Spot) -> Contrast:
            return weighted((factor, self.a.at(spot.row, spot.column)))

        spots, found, name = self.spots(layout), [], str(self.a) or "the cell"
        if self.low is not None:
            found += self.spread(spots, self.low, lambda spot: times(1, spot), name)
        if self.high is not None:
            found += self.spread(spots, 0.0 - self.high, lambda spot: times(-1, spot), f"−{name}")
        return found
