"""A law fitted along a numeric axis: its exponent in a band, its sign, how well it fits, whether it is monotone.

Each seed is fitted by itself (scipy), so a seed gives one number, and what its cells share drops out as in any other claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point
from sparselab.experiments.tables.laws import LAWS, curve_of, fit_law, scaled
from sparselab.experiments.tables.statistics import Contrast, Derived, Place, Samples

KEY = r"[a-z_]+(\.\w+)+"

Line = Sequence[tuple[float, Contrast, Contrast]]
"""(x, y, what y is divided by) in the order of x."""


class _PerSeed(Derived):
    """A number of one or several fitted curves (their mean), from the values that one seed has at the curves' cells."""

    def __init__(
        self,
        lines: Sequence[Line],
        number: Callable[[list[float], list[float]], float],
    ):
        super().__init__({place: 0.0 for line in lines for _, a, b in line for place in (*a, *b)})
        self._lines, self._number = lines, number

    def of(self, values: Mapping[Place, float]) -> float:
        found = []
        for line in self._lines:
            y = _numbers(line, values)
            if y is None:
                return math.nan
            found.append(self._number([x for x, _, _ in line], y))
        return math.fsum(found) / len(found)


def _numbers(line: Line, values: Mapping[Place, float]) -> list[float] | None:
    """y at every place of a line; None where one would be divided by 0."""

    def linear(contrast: Contrast) -> float:
        return math.fsum(weight * values[place] for place, weight in contrast.items())

    y = []
    for _, above, below in line:
        under = linear(below) if below else 1.0
        if not under:
            return None
        y.append(linear(above) / under)
    return y


@CLAIMS.register("fit")
class Fit(Claim):
    """``of`` (over ``over``) follows a law along an axis, with its exponent b between ``low`` and ``high``.

    Laws: y = a x^b (``power``), a e^(b x) (``exponential``), a + b log x (``logarithmic``), a + b x (``linear``), c + a x^b
    (``offset_power``) or c + e^(β - a x^b) with b above 0 (``stretched``).

    x is what the cells' overrides set ``x`` to: a key (also one inside the cell that they name, such as
    ``model.weights.at``), or two of them and their quotient. ``r2``: the least R² (on the scale that is fitted);
    ``direction``: the smallest of all steps goes that way. A seed with numbers that have no logarithm decides nothing.
    """

    of: Point
    over: Point | None = Field(None, description="a point to divide by")
    along: Literal["rows", "columns"] = Field(description='"rows" or "columns"')
    x: str = Field(
        pattern=f"^{KEY}(/{KEY})?$",
        description="the key that the cells set to a number, like problem.n, or two: model.width/model.depth",
    )
    law: Literal["power", "exponential", "logarithmic", "linear", "offset_power", "stretched"] = Field(
        "power", description="power, exponential, logarithmic, linear, offset_power or stretched"
    )
    low: float | None = Field(None, description="the least exponent (rate, slope); without it: open")
    high: float | None = Field(None, description="the largest exponent; without it: open")
    r2: float | None = Field(None, ge=0, le=1, description="the least R² of a seed's fit; without it: any")
    direction: Literal["rising", "falling"] | None = Field(
        None, description='"rising" or "falling" from place to place'
    )
    curve: bool = Field(
        False,
        description="true: the evidence has the curve through the means over seeds, with 95 % intervals and its residuals",
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
        numbers = [self._x(place, layout) for place in places]
        return [place for place, x in zip(places, numbers, strict=True) if x is None], numbers[0] or 0.0

    def _x(self, place: Place, layout: Layout) -> float | None:
        """The number of the key, or the quotient of two."""
        above, *below = (layout.numbers(place, key) for key in self.x.split("/"))
        if above is None or not all(below):
            return None
        return above / math.prod(number for number in below if number)

    def _lines(self, layout: Layout) -> dict[str, list[tuple[float, Contrast, Contrast]]]:
        """For each name of the other axis a line, where it has enough places."""
        law = LAWS[self.law]
        lines: dict[str, list[tuple[float, Contrast, Contrast]]] = {}
        for spot in self.spots(layout):
            other = (spot.column if self.along == "rows" else spot.row) or ""
            under = {} if self.over is None else self.over.at(spot.row, spot.column)
            missing, x = self._at(spot.row, spot.column, layout)
            if not missing and (x > 0 or (law.straight and not law.logs[0])):
                lines.setdefault(f"{other}: " if other else "", []).append(
                    (x, self.of.at(spot.row, spot.column), under)
                )
        return {
            label: sorted(line, key=lambda item: item[0])
            for label, line in lines.items()
            if len({x for x, _, _ in line}) >= law.least
        }

    def _ends(self, label: str, lines: list[list[tuple[float, Contrast, Contrast]]]) -> list[Bound]:
        def bound(number: Callable[[list[float], list[float]], float], at_least: float, says: str) -> Bound:
            return Bound(_PerSeed(lines, number), at_least, f"{label}{says}")

        name = LAWS[self.law].slope
        found = []
        if self.low is not None:
            found.append(bound(lambda x, y: curve_of(self.law, x, y).slope, self.low, name))
        if self.high is not None:
            found.append(bound(lambda x, y: -curve_of(self.law, x, y).slope, 0.0 - self.high, f"−{name}"))
        if self.r2 is not None:
            found.append(bound(lambda x, y: curve_of(self.law, x, y).r2, self.r2, "R²"))
        if self.direction is not None:
            found.append(bound(self._least_step, 0.0, f"least {self.direction} step"))
        return found

    def told(self, layout: Layout, samples: Samples, seeds: Sequence[int]) -> str:
        """The curves through the means over seeds, in words: coefficients, intervals, the largest residual."""
        if not self.curve:
            return ""
        words = []
        for label, line in self._lines(layout).items():
            cells = {place for _, a, b in line for place in (*a, *b)}
            means = {place: math.fsum(samples[place][seed] for seed in seeds) / len(seeds) for place in cells}
            y = _numbers(line, means)
            found = None if y is None else fit_law(self.law, [x for x, _, _ in line], y)
            if found is None or not found.residuals:
                words.append(f"{label}no curve through the means")
                continue
            each = [
                f"{name} {value:.3g} ({found.intervals[name][0]:.3g} to {found.intervals[name][1]:.3g})"
                for name, value in found.coefficients.items()
            ]
            largest = max(map(abs, found.residuals))
            words.append(f"{label}{', '.join(each)}, R² {found.r2:.4f}, largest residual {largest:.2g}")
        return "".join(f"; curve through the means: {text}".replace("-", "−") for text in words)

    def _least_step(self, x: list[float], y: list[float]) -> float:
        ys = scaled(y, LAWS[self.law].logs[1])
        sign = 1 if self.direction == "rising" else -1
        return math.nan if ys is None else min(sign * (after - before) for before, after in pairwise(ys))
