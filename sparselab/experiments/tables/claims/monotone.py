"""A quantity that rises or falls along the rows or the columns."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point, weighted


@CLAIMS.register("monotone")
class Monotone(Claim):
    """``of`` rises or falls along an axis, in the order in which the claim (or else the table) lists the names.

    Holds when the straight-line trend is shown and no single step is shown to go the other way; with ``strict`` every
    step has to be shown. Fails when the trend or a step is shown to go the other way.
    """

    of: Point
    minus: Point | None = Field(None, description="another cell, whose number is taken away from each")
    along: Literal["rows", "columns"] = Field(description='"rows" or "columns"')
    direction: Literal["rising", "falling"] = Field(description='"rising" or "falling"')
    strict: bool = Field(False, description="true: every single step has to be shown")

    def points(self) -> list[Point]:
        return [self.of] if self.minus is None else [self.of, self.minus]

    def _lines(self, layout: Layout) -> list[tuple[str, list[tuple[str, dict]]]]:
        """For each name of the other axis: the ordered (name, contrast) along ``along``; at least two."""
        lines: dict[str | None, list[tuple[str, dict]]] = {}
        for spot in self.spots(layout):
            here, other = (spot.row, spot.column) if self.along == "rows" else (spot.column, spot.row)
            contrast = weighted(
                (1, self.of.at(spot.row, spot.column)),
                *(((-1, self.minus.at(spot.row, spot.column)),) if self.minus is not None else ()),
            )
            lines.setdefault(other, []).append((here or "", dict(contrast)))
        return [(f"{other}: " if other else "", line) for other, line in lines.items() if len(line) > 1]

    def bounds(self, layout: Layout) -> list[Bound]:
        if self.strict:
            return self._steps(layout)
        found = []
        for label, line in self._lines(layout):
            middle = (len(line) - 1) / 2
            scale = sum((i - middle) ** 2 for i in range(len(line)))
            trend = weighted(*((self._sign * (i - middle) / scale, contrast) for i, (_, contrast) in enumerate(line)))
            found.append(Bound(trend, 0.0, f"{label}{self.direction} trend per step"))
        return found

    def guards(self, layout: Layout) -> list[Bound]:
        return [] if self.strict else self._steps(layout)

    @property
    def _sign(self) -> int:
        return 1 if self.direction == "rising" else -1

    def _steps(self, layout: Layout) -> list[Bound]:
        return [
            Bound(weighted((self._sign, after), (-self._sign, before)), 0.0, f"{label}step {first} → {second}")
            for label, line in self._lines(layout)
            for (first, before), (second, after) in pairwise(line)
        ]
