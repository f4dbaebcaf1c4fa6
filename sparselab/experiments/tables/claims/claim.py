"""The base of all claims: a claim is a list of linear bounds on the cells' true means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sparselab.core.options import Options
from sparselab.core.registry import Registry
from sparselab.experiments.tables.statistics import Contrast, Place, Samples


@dataclass(frozen=True)
class Layout:
    """The part of a table that a claim may look at: rows and columns in order, the cells that exist, and the dense reference.

    ``reference`` gives the place of a cell's dense baseline, or None where the table names none.
    ``loss`` is 1 where a smaller metric is worse (accuracy) and -1 where a larger one is (perplexity).
    ``numbers`` gives the number that a cell's overrides set a key to, or None where they set it to none.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: frozenset[Place]
    reference: Callable[[Place], Place | None]
    loss: int
    numbers: Callable[[Place, str], float | None] = lambda place, key: None


@dataclass(frozen=True)
class Bound:
    """One statement: the true value of ``contrast`` is at least ``at_least``. ``says`` is its left side in words."""

    contrast: Contrast
    at_least: float
    says: str


@dataclass(frozen=True)
class Part:
    """One end of a claim: ``contrast`` at each of ``spots`` is at least ``at_least``. ``says`` is its left side in words.

    sided: True of a comparison, whose sign says who is ahead; False of a number that has to lie in a band.
    """

    spots: list[Spot]
    at_least: float
    contrast: Callable[[Spot], Contrast]
    says: str
    sided: bool = True


def weighted(*parts: tuple[float, Contrast]) -> Contrast:
    """The weighted sum of contrasts; cells whose weight vanishes are left out."""
    total: dict[Place, float] = {}
    for weight, contrast in parts:
        for place, value in contrast.items():
            total[place] = total.get(place, 0.0) + weight * value
    return {place: value for place, value in total.items() if value}


class Point(Options):
    """The mean of a cell, or (``minus``) the difference of two.

    A coordinate that is left out is filled by the claim: it is stated for each of the claim's rows (or columns).
    """

    row: str | None = Field(None, description="the name of a row")
    column: str | None = Field(None, description="the name of a column")
    minus: Point | None = Field(None, description="a point to subtract")

    def all(self) -> Iterator[Point]:
        """This point and the ones subtracted from it."""
        yield self
        if self.minus is not None:
            yield from self.minus.all()

    def at(self, row: str | None, column: str | None) -> Contrast:
        """The contrast, with the open coordinates filled in."""
        own = {(self.row or row or "", self.column or column or ""): 1.0}
        return own if self.minus is None else weighted((1, own), (-1, self.minus.at(row, column)))

    def __str__(self) -> str:
        words = " ".join(word for word in (self.row, self.column) if word) or "it"
        return words if self.minus is None else f"({words} − {self.minus})"


class Premise(Options):
    """The premise of a claim: ``a`` is at least ``low``, such as a task that the dense network learned."""

    a: Point
    low: float = Field(description="in units of the table's metric")


class Claim(Options):
    """A sentence of a paper as data. Subclasses say which parts it is made of.

    It holds when every bound holds (so the least certain one decides), and fails when any bound is violated (corrected
    for their number). With ``combine: any`` it is the other way round: it holds when one bound does (corrected for their
    number), and fails when all are violated. ``guards`` only have to be not violated: a mean over several rows or columns
    holds only while none of them is shown to go the other way. Where ``presupposes`` is not shown, the claim is neither.
    """

    name: ClassVar[str] = ""
    one_bound: ClassVar[bool] = False  # at each spot, so that "any" of the spots can be asked for

    id: str = Field("", description="its name in tables: the key that it stands under, or C1, C2 … of a list")
    kind: str = Field(description="the kind of claim")
    text: str = Field(min_length=1, description="what the paper says, as a sentence")
    headline: bool = Field(False, description="true for what the paper is known for")
    basis: Literal["empirical", "exact", "reported"] = Field(
        "empirical",
        description='"empirical", "exact" (arithmetic or proof) or "reported" (not the paper\'s, or any method passes it)',
    )
    rule1: dict[str, Literal["holds", "fails", "inconclusive"]] = Field(
        default_factory=dict, description="by tier: its verdict under rule 1, on the records that there were then"
    )
    metric: str | None = Field(
        None,
        description="a record's metric, account.NAME or a label of `extra_columns`; without it: the table's",
    )
    presupposes: Premise | None = Field(
        None,
        description="a cell, and the least that it has to be: the claim is open until that is shown; without it: nothing",
    )
    tiers: list[str] | None = Field(None, description="the tiers that it is stated for; without it: all")
    rows: list[str] | None = Field(None, description="the rows that it is stated for; without it: all")
    columns: list[str] | None = Field(None, description="the columns that it is stated for; without it: all")
    combine: Literal["mean", "each", "any"] = Field(
        "each",
        description='"each": of every row (or column) by itself; "mean": of their mean, and none the other way; '
        '"any": of one of them at least (an order alone)',
    )

    @model_validator(mode="after")
    def _any_of_one_bound(self) -> Claim:
        if self.combine == "any" and not self.one_bound:
            raise ValueError("any is for kind: order")
        return self

    def points(self) -> list[Point]:
        """Every point that the claim names."""
        raise NotImplementedError

    def parts(self, layout: Layout) -> list[Part]:
        """The ends that the claim is made of."""
        raise NotImplementedError

    def bounds(self, layout: Layout) -> list[Bound]:
        """The bounds; empty where the layout has none of the claim's cells."""
        return [bound for part in self.parts(layout) for bound in self._bounds(part)]

    def guards(self, layout: Layout) -> list[Bound]:
        """Bounds that need not be shown, but must not be violated.

        A mean is guarded at each of its spots: a comparison by its sign (or its margin, where that allows less than
        none), a band by its own end.
        """
        return [
            Bound(part.contrast(spot), min(part.at_least, 0.0) if part.sided else part.at_least, f"{spot}{part.says}")
            for part in self.parts(layout)
            if self._meant(part)
            for spot in part.spots
        ]

    def premises(self, layout: Layout) -> list[Bound]:
        """Bounds on the table's own metric without which a verdict would be empty."""
        if self.presupposes is None:
            return []
        a = self.presupposes.a
        columns = layout.columns if a.column is None else (a.column,)
        places = [place for column in columns if (place := (a.row or "", column)) in layout.cells]
        return [Bound({place: 1.0}, self.presupposes.low, " ".join(place)) for place in places]

    def compared(self, layout: Layout) -> list[Bound]:
        """Differences whose interval, and whose test against 0, stand with the evidence; by default none."""
        return []

    def told(self, layout: Layout, samples: Samples, seeds: Sequence[int]) -> str:
        """More words for the evidence, after it; by default none."""
        return ""

    def unset(self, layout: Layout) -> list[Place]:
        """Cells that lack what the claim has to know of them beside their results."""
        return []

    def spots(self, layout: Layout) -> list[Spot]:
        """The rows and columns that fill the open coordinates, in order, where all the cells exist."""
        points = [point for top in self.points() for point in top.all()]
        rows = self._names(self.rows, layout.rows) if any(point.row is None for point in points) else [None]
        columns = self._names(self.columns, layout.columns) if any(point.column is None for point in points) else [None]
        return [
            Spot(row, column)
            for row in rows
            for column in columns
            if all(place in layout.cells for top in self.points() for place in top.at(row, column))
        ]

    @staticmethod
    def _names(asked: list[str] | None, there: tuple[str, ...]) -> list[str]:
        return list(there) if asked is None else [name for name in asked if name in there]

    def _meant(self, part: Part) -> bool:
        return self.combine == "mean" and len(part.spots) > 1

    def _bounds(self, part: Part) -> list[Bound]:
        """One bound for each spot, or one for their mean, as ``combine`` says."""
        if self._meant(part):
            total = weighted(*((1 / len(part.spots), part.contrast(spot)) for spot in part.spots))
            return [Bound(total, part.at_least, f"mean of {len(part.spots)} × ({part.says})")]
        return [Bound(part.contrast(spot), part.at_least, f"{spot}{part.says}") for spot in part.spots]


@dataclass(frozen=True)
class Spot:
    """The row and the column that fill a point's open coordinates."""

    row: str | None
    column: str | None

    def __str__(self) -> str:
        words = " ".join(word for word in (self.row, self.column) if word)
        return f"{words}: " if words else ""


CLAIMS: Registry[Claim] = Registry("claim", "sparselab.experiments.tables.claims")
