"""A cell against a number that the paper states."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, model_validator

from sparselab.tables.claims.claim import CLAIMS, Claim, Layout, Part, Point, Spot, weighted
from sparselab.tables.statistics import Contrast


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

    def parts(self, layout: Layout) -> list[Part]:
        def times(factor: int) -> Callable[[Spot], Contrast]:
            return lambda spot: weighted((factor, self.a.at(spot.row, spot.column)))

        spots, found, name = self.spots(layout), [], str(self.a) or "the cell"
        if self.low is not None:
            found.append(Part(spots, self.low, times(1), name, sided=False))
        if self.high is not None:
            found.append(Part(spots, 0.0 - self.high, times(-1), f"−{name}", sided=False))
        return found
