"""Two cells that are the same: a null result as a claim that can hold."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Part, Point, Spot, weighted
from sparselab.experiments.tables.statistics import Contrast


@CLAIMS.register("equivalence")
class Equivalence(Claim):
    """``a`` and ``b`` differ by less than ``margin``, in either direction: two one-sided tests (Schuirmann 1987).

    It holds where both are found, which is where the 90 % interval of the difference lies within the margin, and fails where
    the difference is shown to be beyond it; one that is merely not found leaves it open. ``relative``: the margin is a fraction
    of ``b``, tested as ``(1 - margin) b <= a <= (1 + margin) b``.
    """

    a: Point
    b: Point
    margin: float = Field(gt=0, description="in units of the metric (or a fraction of b), above 0")
    relative: bool = Field(False, description="true: margin is a fraction of b")

    @model_validator(mode="after")
    def _is_a_fraction(self) -> Equivalence:
        if self.relative and self.margin >= 1:
            raise ValueError(f"margin {self.margin:g} is no fraction of b: write 0.05 for 5 %")
        return self

    def points(self) -> list[Point]:
        return [self.a, self.b]

    def parts(self, layout: Layout) -> list[Part]:
        spots, margin = self.spots(layout), self.margin
        low, high, least = (1 - margin, 1 + margin, 0.0) if self.relative else (1.0, 1.0, -margin)
        below = f"{self.a} − {low:g}·{self.b}" if self.relative else f"{self.a} − {self.b}"
        above = f"{high:g}·{self.b} − {self.a}" if self.relative else f"{self.b} − {self.a}"
        return [
            Part(spots, least, self._sum((1, self.a), (-low, self.b)), below, sided=False),
            Part(spots, least, self._sum((high, self.b), (-1, self.a)), above, sided=False),
        ]

    def compared(self, layout: Layout) -> list[Bound]:
        difference = self._sum((1, self.a), (-1, self.b))
        return self._bounds(Part(self.spots(layout), 0.0, difference, f"{self.a} − {self.b}"))

    @staticmethod
    def _sum(*terms: tuple[float, Point]) -> Callable[[Spot], Contrast]:
        return lambda spot: weighted(*((weight, point.at(spot.row, spot.column)) for weight, point in terms))
