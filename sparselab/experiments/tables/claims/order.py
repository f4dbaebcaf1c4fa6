"""One cell against another or against a number: orders, bounds, differences, ratios, staying close to dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Claim, Layout, Part, Point, Spot, weighted
from sparselab.experiments.tables.statistics import Contrast


def _sum(*terms: tuple[float, Point]) -> Callable[[Spot], Contrast]:
    """The weighted sum of points, at a spot."""
    return lambda spot: weighted(*((weight, point.at(spot.row, spot.column)) for weight, point in terms))


@CLAIMS.register("order")
class Order(Claim):
    """``a`` is above (or below) ``b``.

    ``>`` asks for more than ``margin`` between them, ``>=`` allows ``a`` to be lower by ``margin``; at margin 0 both
    need the same evidence, because a test cannot tell "equal" from "a hair above".
    """

    one_bound = True
    a: Point
    b: Point
    relation: Literal[">", ">=", "<", "<="] = Field(">=", description='">", ">=", "<" or "<="')
    margin: float = Field(0.0, ge=0, description="in units of the table's metric, at least 0")

    def points(self) -> list[Point]:
        return [self.a, self.b]

    def parts(self, layout: Layout) -> list[Part]:
        high, low = (self.a, self.b) if self.relation.startswith(">") else (self.b, self.a)
        at_least = 0.0 - self.margin if self.relation.endswith("=") else self.margin
        return [Part(self.spots(layout), at_least, _sum((1, high), (-1, low)), f"{high} − {low}")]


class _Band(Claim):
    low: float | None = Field(None, description="the lower end; without it: open")
    high: float | None = Field(None, description="the upper end; without it: open")
    a: Point

    @model_validator(mode="after")
    def _has_an_end(self) -> _Band:
        if self.low is None and self.high is None:
            raise ValueError("a band needs low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def points(self) -> list[Point]:
        return [self.a]


@CLAIMS.register("bound")
class Bounded(_Band):
    """``a`` itself lies between ``low`` and ``high``, in units of the table's metric (or of the claim's own).

    It is a cell against a number that the paper states, or a number that is a comparison already, like a speed-up.
    """

    def parts(self, layout: Layout) -> list[Part]:
        spots, found = self.spots(layout), []
        if self.low is not None:
            found.append(Part(spots, self.low, _sum((1, self.a)), str(self.a), sided=False))
        if self.high is not None:
            found.append(Part(spots, 0.0 - self.high, _sum((-1, self.a)), f"−{self.a}", sided=False))
        return found


class _Pair(_Band):
    b: Point

    def points(self) -> list[Point]:
        return [self.a, self.b]


@CLAIMS.register("difference")
class Difference(_Pair):
    """``a - b`` lies between ``low`` and ``high``, in units of the table's metric."""

    def parts(self, layout: Layout) -> list[Part]:
        spots, found = self.spots(layout), []
        if self.low is not None:
            found.append(Part(spots, self.low, _sum((1, self.a), (-1, self.b)), f"{self.a} − {self.b}"))
        if self.high is not None:
            found.append(Part(spots, 0.0 - self.high, _sum((1, self.b), (-1, self.a)), f"{self.b} − {self.a}"))
        return found


@CLAIMS.register("ratio")
class Ratio(_Pair):
    """``a / b`` lies between ``low`` and ``high``, tested as ``low * b <= a <= high * b``.

    The linear form needs no division by a difference that may be near zero (Fieller's method); for a positive ``b`` the
    two say the same.
    """

    def parts(self, layout: Layout) -> list[Part]:
        spots, found = self.spots(layout), []
        if (low := self.low) is not None:
            found.append(Part(spots, 0.0, _sum((1, self.a), (-low, self.b)), f"{self.a} − {low:g}·{self.b}"))
        if (high := self.high) is not None:
            found.append(Part(spots, 0.0, _sum((high, self.b), (-1, self.a)), f"{high:g}·{self.b} − {self.a}"))
        return found


@CLAIMS.register("within")
class Within(Claim):
    """``a`` matches its dense reference: it is worse by at most ``margin`` (being better is no fault)."""

    a: Point
    margin: float = Field(ge=0, description="in units of the table's metric, at least 0")

    def points(self) -> list[Point]:
        return [self.a]

    def parts(self, layout: Layout) -> list[Part]:
        def gap(row: str | None, column: str | None) -> dict[tuple[str, str], float]:
            own = self.a.at(row, column)
            dense = [(weight, layout.reference(place)) for place, weight in own.items()]
            return dict(
                weighted(
                    (layout.loss, own), *((-layout.loss * w, {place: 1.0}) for w, place in dense if place is not None)
                )
            )

        spots = [
            spot
            for spot in self.spots(layout)
            if all(layout.reference(place) in layout.cells for place in self.a.at(spot.row, spot.column))
        ]
        says = f"{self.a} − dense" if layout.loss > 0 else f"dense − {self.a}"
        return [Part(spots, 0.0 - self.margin, lambda spot: gap(spot.row, spot.column), says.strip())]
