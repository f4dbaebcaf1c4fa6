"""A law fitted along a numeric axis: its exponent in a band, its sign, how well it fits, whether it is monotone.

Each seed is fitted by itself (scipy), so a seed gives one number, and what its cells share drops out as in any other claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point
from sparselab.experiments.tables.statistics import Contrast, Derived, Place

LEAST = 3  # places on the axis: any two lie on a curve
STEEPEST = 8.0  # of the exponents that are looked at beside an offset


@dataclass(frozen=True)
class Curve:
    """A fitted curve of y at x. slope: the exponent of a power, the rate of an exponential, the slope of a line."""

    slope: float
    r2: float


def _straight(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Least squares of a line; a constant y is fitted perfectly by slope 0."""
    import numpy as np  # scipy.stats.linregress is the same sums; to import it takes longer than all fits of a report

    if len(set(y)) == 1:
        return Curve(0.0, 1.0)
    of_x, together, _, of_y = np.cov(x, y, bias=True).flat
    correlation = min(1.0, max(-1.0, float(together / np.sqrt(of_x * of_y)))) if of_y else 0.0
    return Curve(float(together / of_x), correlation**2)


def _beside_an_offset(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Least squares of y = c + a x^b: for each b a line in x^b, and the b of the best of them.

    The smallest residual is bracketed on a grid of b, which has several local ones, and refined there.
    """
    from scipy.optimize import minimize_scalar

    middle = math.exp(math.fsum(map(math.log, x)) / len(x))  # of x, so that no power overflows

    def missed(b: float) -> float:
        return 1 - _straight([(v / middle) ** b for v in x], y).r2 if b else math.inf

    grid = [i / 10 for i in range(int(-10 * STEEPEST), int(10 * STEEPEST) + 1) if i]
    best = min(grid, key=missed)
    low, high = best - 0.1, best + 0.1
    found = minimize_scalar(missed, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    b = float(found.x) if found.fun <= missed(best) else best
    return Curve(b, 1 - missed(b))


LAWS: dict[str, tuple[bool, bool, int, Callable[[Sequence[float], Sequence[float]], Curve]]] = {
    # name: (logarithm of x, logarithm of y, fewest places, how the rest is fitted)
    "power": (True, True, LEAST, _straight),
    "exponential": (False, True, LEAST, _straight),
    "logarithmic": (True, False, LEAST, _straight),
    "linear": (False, False, LEAST, _straight),
    "offset_power": (False, False, LEAST + 1, _beside_an_offset),
}


def scaled(values: Sequence[float], log: bool) -> list[float] | None:
    """The values, or their logarithms; None where one has none."""
    if not log:
        return list(values)
    return [math.log(v) for v in values] if min(values) > 0 else None


class _PerSeed(Derived):
    """A number of one or several fitted curves (their mean), from the values that one seed has at the curves' cells."""

    def __init__(
        self,
        lines: Sequence[Sequence[tuple[float, Contrast, Contrast]]],
        number: Callable[[list[float], list[float]], float],
    ):
        super().__init__({place: 0.0 for line in lines for _, a, b in line for place in (*a, *b)})
        self._lines, self._number = lines, number

    def of(self, values: Mapping[Place, float]) -> float:
        def linear(contrast: Contrast) -> float:
            return math.fsum(weight * values[place] for place, weight in contrast.items())

        found = []
        for line in self._lines:
            y = []
            for _, above, below in line:
                under = linear(below) if below else 1.0
                if not under:
                    return math.nan
                y.append(linear(above) / under)
            found.append(self._number([x for x, _, _ in line], y))
        return math.fsum(found) / len(found)


@CLAIMS.register("fit")
class Fit(Claim):
    """``of`` (over ``over``) follows a law along an axis, with its exponent b between ``low`` and ``high``.

    Laws: y = a x^b (``power``), a e^(b x) (``exponential``), a + b log x (``logarithmic``), a + b x (``linear``) or c + a x^b
    (``offset_power``).

    x is what the cells' overrides set ``x`` to. ``r2``: the least R² (on the scale that is fitted); ``direction``: the
    smallest of all steps goes that way. A seed with numbers that have no logarithm decides nothing.
    """

    of: Point
    over: Point | None = Field(None, description="a point to divide by")
    along: Literal["rows", "columns"] = Field(description='"rows" or "columns"')
    x: str = Field(pattern=r"^[a-z_]+(\.\w+)+$", description="the key that the cells set to a number, like problem.n")
    law: Literal["power", "exponential", "logarithmic", "linear", "offset_power"] = Field(
        "power", description="power, exponential, logarithmic, linear or offset_power"
    )
    low: float | None = Field(None, description="the least exponent (rate, slope); without it: open")
    high: float | None = Field(None, description="the largest exponent; without it: open")
    r2: float | None = Field(None, ge=0, le=1, description="the least R² of a seed's fit; without it: any")
    direction: Literal["rising", "falling"] | None = Field(
        None, description='"rising" or "falling" from place to place'
    )

    @model_validator(mode="after")
    def _says_something(self) -> Fit:
        if self.low is None and self.high is None and self.r2 is None and self.direction is None:
            raise ValueError("a fit needs low, high, r2 or direction")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def points(self) -> list[Point]:
        return [self.of] if self.over is None else [self.of, self.over]

    def bounds(self, layout: Layout) -> list[Bound]:
        lines = self._lines(layout)
        if self.combine == "mean" and len(lines) > 1:
            return self._ends(f"mean of {len(lines)} × ", list(lines.values()))
        return [bound for label, line in lines.items() for bound in self._ends(label, [line])]

    def guards(self, layout: Layout) -> list[Bound]:
        return []

    def unset(self, layout: Layout) -> list[Place]:
        """Cells whose overrides do not set ``x`` to a number."""
        return [place for spot in self.spots(layout) for place in self._at(spot.row, spot.column, layout)[0]]

    def _at(self, row: str | None, column: str | None, layout: Layout) -> tuple[list[Place], float]:
        """(cells of the spot without a number, the number of the first one of ``of``)."""
        places = list(self.of.at(row, column))
        numbers = [layout.numbers(place, self.x) for place in places]
        return [place for place, x in zip(places, numbers, strict=True) if x is None], numbers[0] or 0.0

    def _lines(self, layout: Layout) -> dict[str, list[tuple[float, Contrast, Contrast]]]:
        """For each name of the other axis: (x, y, what y is divided by) in the order of x, where there are enough of them."""
        log, _, least, _ = LAWS[self.law]
        lines: dict[str, list[tuple[float, Contrast, Contrast]]] = {}
        for spot in self.spots(layout):
            other = (spot.column if self.along == "rows" else spot.row) or ""
            under = {} if self.over is None else self.over.at(spot.row, spot.column)
            missing, x = self._at(spot.row, spot.column, layout)
            if not missing and (x > 0 or not log):
                lines.setdefault(f"{other}: " if other else "", []).append(
                    (x, self.of.at(spot.row, spot.column), under)
                )
        return {
            label: sorted(line, key=lambda item: item[0])
            for label, line in lines.items()
            if len({x for x, _, _ in line}) >= least
        }

    def _ends(self, label: str, lines: list[list[tuple[float, Contrast, Contrast]]]) -> list[Bound]:
        def bound(number: Callable[[list[float], list[float]], float], at_least: float, says: str) -> Bound:
            return Bound(_PerSeed(lines, number), at_least, f"{label}{says}")

        name = {"power": "exponent", "offset_power": "exponent", "exponential": "rate"}.get(self.law, "slope")
        found = []
        if self.low is not None:
            found.append(bound(lambda x, y: self._curve(x, y).slope, self.low, name))
        if self.high is not None:
            found.append(bound(lambda x, y: -self._curve(x, y).slope, 0.0 - self.high, f"−{name}"))
        if self.r2 is not None:
            found.append(bound(lambda x, y: self._curve(x, y).r2, self.r2, "R²"))
        if self.direction is not None:
            found.append(bound(self._least_step, 0.0, f"least {self.direction} step"))
        return found

    def _curve(self, x: list[float], y: list[float]) -> Curve:
        log_x, log_y, _, fitted = LAWS[self.law]
        xs, ys = scaled(x, log_x), scaled(y, log_y)
        return Curve(math.nan, math.nan) if xs is None or ys is None else fitted(xs, ys)

    def _least_step(self, x: list[float], y: list[float]) -> float:
        ys = scaled(y, LAWS[self.law][1])
        sign = 1 if self.direction == "rising" else -1
        return math.nan if ys is None else min(sign * (after - before) for before, after in pairwise(ys))
