"""Essential sparsity: how far a curve of growing sparsity stays with the dense network, and how sharply it leaves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point
from sparselab.experiments.tables.statistics import Derived, Place

ROUNDING = 1e-9
"""Error of a difference of scores: five images of 500 are a point, and as per cents may differ by more."""

Curve = Sequence[tuple[float, Place]]
"""(number, cell) in ascending order of the numbers, the dense cell left out."""


def essential_sparsity(x: Sequence[float], drops: Sequence[float], eps: float) -> float:
    """The last of ``x`` (ascending, from 0, where the drop is 0) before the first drop above ``eps``.

    Where no drop is above it that is the last of all, and where the curve recovers later the first crossing still counts.
    """
    return x[_knee(drops, eps)]


def steepening(x: Sequence[float], drops: Sequence[float], eps: float, factor: float) -> float:
    """Slope of the step after the essential sparsity, less ``factor`` times the slope before it (0 where that falls).

    Without a flat part (an essential sparsity of 0) the first step is the slope before, the second that after. NaN where there
    is no step after.
    """
    knee = max(_knee(drops, eps), 1)
    if knee + 1 >= len(x):
        return math.nan
    before = drops[knee] / x[knee]
    after = (drops[knee + 1] - drops[knee]) / (x[knee + 1] - x[knee])
    return after - factor * max(before, 0.0)


def _knee(drops: Sequence[float], eps: float) -> int:
    """The place of the last drop within eps. One that is no number is none of them: a network that is broken is not free."""
    return next((i for i, drop in enumerate(drops) if not drop <= eps + ROUNDING), len(drops)) - 1


class _PerSeed(Derived):
    """A number of one or two curves, from the values that one seed has at their cells."""

    def __init__(
        self,
        curves: Sequence[tuple[Curve, Place]],
        number: Callable[[Sequence[tuple[list[float], list[float]]]], float],
        claim: Essential,
        loss: int,
        resolution: float | None,
    ):
        super().__init__({place: 0.0 for curve, dense in curves for place in [dense, *(cell for _, cell in curve)]})
        self._curves, self._number, self._claim, self._loss = curves, number, claim, loss
        if resolution is not None:
            self.resolution = resolution

    def of(self, values: Mapping[Place, float]) -> float:
        found = []
        for curve, dense in self._curves:
            unit = abs(values[dense]) if self._claim.relative else 1.0
            if not unit:
                return math.nan
            drops = [self._loss * (values[dense] - values[place]) / unit for _, place in curve]
            found.append(([0.0, *(x for x, _ in curve)], [0.0, *drops]))
        return self._number(found)


@CLAIMS.register("essential")
class Essential(Claim):
    """The largest sparsity that costs at most ``eps`` lies between ``low`` and ``high``.

    It is the last one before the first whose drop from the dense cell is larger (with ``minus``: less that of another curve);
    after it the curve is ``steeper`` times as steep.

    A seed's sparsity lies on the grid, so two seeds are not told apart by less than its smallest step.
    """

    of: Point
    minus: Point | None = Field(None, description="a point whose essential sparsity is subtracted")
    along: Literal["rows", "columns"] = Field(description='"rows" or "columns"')
    x: str = Field("sparsity", pattern=r"^[a-z_]+(\.\w+)*$", description="the key that the cells set to a number")
    eps: float = Field(ge=0, description="the drop that is allowed, in units of the metric (or of the dense value)")
    relative: bool = Field(False, description="true: drops are fractions of the dense value")
    low: float | None = Field(None, description="the least essential sparsity (or difference); without it: open")
    high: float | None = Field(None, description="the largest; without it: open")
    steeper: float | None = Field(
        None, ge=1, description="slope after it over the slope before it, at least; at least 1"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Essential:
        if self.low is None and self.high is None and self.steeper is None:
            raise ValueError("an essential sparsity needs low, high or steeper")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.minus is not None and self.steeper is not None:
            raise ValueError("steeper is said of one curve: leave minus out")
        if any(point.minus is not None for point in self.points()):
            raise ValueError("a curve is of cells, not of differences: write minus beside of")
        return self

    def points(self) -> list[Point]:
        return [self.of] if self.minus is None else [self.of, self.minus]

    def bounds(self, layout: Layout) -> list[Bound]:
        found = []
        for label, curves in self._curves(layout).items():
            step = min(b - a for curve, _ in curves for (a, _), (b, _) in pairwise([(0.0, ("", "")), *curve]))

            def bound(number: Callable[..., float], at_least: float, says: str, step: float | None) -> Bound:
                return Bound(_PerSeed(curves, number, self, layout.loss, step), at_least, f"{label}{says}")  # noqa: B023

            name = "essential sparsity" + (f" − that of {self.minus}" if self.minus is not None else "")
            if self.low is not None:
                found.append(bound(self._sparsity(1), self.low, name, step))
            if self.high is not None:
                found.append(bound(self._sparsity(-1), 0.0 - self.high, f"−({name})", step))
            if (factor := self.steeper) is not None:

                def steep(found: Sequence[tuple[list[float], list[float]]], factor: float = factor) -> float:
                    return steepening(*found[0], self.eps, factor)

                found.append(bound(steep, 0.0, f"slope after − {factor:g} × slope before", None))
        return found

    def guards(self, layout: Layout) -> list[Bound]:
        return []

    def unset(self, layout: Layout) -> list[Place]:
        """Cells that do not set ``x`` to a number, the dense one left out."""
        return [
            place
            for spot in self.spots(layout)
            for point in self.points()
            for place in point.at(spot.row, spot.column)
            if place != layout.reference(place) and layout.numbers(place, self.x) is None
        ]

    def _sparsity(self, sign: int) -> Callable[[Sequence[tuple[list[float], list[float]]]], float]:
        def number(found: Sequence[tuple[list[float], list[float]]]) -> float:
            each = [essential_sparsity(x, drops, self.eps) for x, drops in found]
            return sign * (each[0] - sum(each[1:]))

        return number

    def _curves(self, layout: Layout) -> dict[str, list[tuple[Curve, Place]]]:
        """For each name of the other axis the curves of ``of`` and ``minus`` with their dense cells, of at least two cells."""
        found: dict[str, list[dict[Place, float]]] = {}
        for spot in self.spots(layout):
            other = (spot.column if self.along == "rows" else spot.row) or ""
            label = f"{other}: " if other else ""
            curves = found.setdefault(label, [{} for _ in self.points()])
            for curve, point in zip(curves, self.points(), strict=True):
                (place,) = point.at(spot.row, spot.column)
                x = layout.numbers(place, self.x)
                if x is not None and place != layout.reference(place):
                    curve[place] = x
        made: dict[str, list[tuple[Curve, Place]]] = {}
        for label, curves in found.items():
            dense = [next((layout.reference(place) for place in curve), None) for curve in curves]
            if all(place in layout.cells for place in dense) and min(map(len, curves)) > 1:
                made[label] = [
                    (sorted((x, place) for place, x in curve.items()), place)
                    for curve, place in zip(curves, dense, strict=True)
                    if place is not None
                ]
        return made
