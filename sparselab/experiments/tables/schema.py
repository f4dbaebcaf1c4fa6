"""The schema of ``configs/paper/<slug>.yaml``; a paper's further tables are ``configs/paper/<slug>/<table>.yaml``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sparselab.core.options import Options
from sparselab.experiments.tables.claims import Claim
from sparselab.experiments.tables.overrides import listed

TIERS = ("smoke", "cpu", "gpu", "paper")
CLAIM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")

Overrides = Annotated[list[str], BeforeValidator(listed, json_schema_input_type=list[str] | dict[str, Any])]
"""Overrides as a list, ``[method=srste, optim.lr=0.1]``, or as a mapping, ``{method: srste, optim.lr: 0.1}``."""


class Source(Options):
    """The source of the table."""

    arxiv: str | None = Field(
        None,
        pattern=r"^\d{4}\.\d{4,5}$",
        description='the arXiv id in quotes, like "2102.04010", or null where there is none',
    )
    elsewhere: str = Field("", description="what it is where there is no arXiv id, like: doctoral thesis of A. Author")
    title: str = Field(min_length=1, description="the paper's title")
    year: int = Field(ge=1950, le=2100, description="the year of publication")
    table: str = Field(min_length=1, description='what is reproduced, like "Table 2"')

    @model_validator(mode="after")
    def _can_be_found(self) -> Source:
        if self.arxiv is None and not self.elsewhere:
            raise ValueError("a source without an arXiv id needs elsewhere: what it is")
        return self

    @property
    def cited(self) -> str:
        """The source in a few words: its arXiv id, or what it is."""
        return self.elsewhere if self.arxiv is None else f"arXiv {self.arxiv}"


class Metric(Options):
    """The number compared. ``scale`` turns the record's number into the printed one (100: a fraction into per cent)."""

    key: str = Field(min_length=1, description="a key of the record's metrics, like test.accuracy")
    label: str = Field(min_length=1, description='as printed, like "top-1 %"')
    better: Literal["higher", "lower"] = Field(description='"higher" or "lower"')
    scale: float = Field(1.0, gt=0, description="printed number over the record's, above 0")
    digits: int = Field(2, ge=0, le=6, description="digits after the point, 0 to 6")
    read: str = Field(min_length=1, description="when it is read, like: at the end of training, at the final sparsity")


class Reference(Options):
    """The dense cell of a cell: a coordinate that is left out is the cell's own."""

    row: str | None = Field(None, description="the name of a row")
    column: str | None = Field(None, description="the name of a column")
    columns: dict[str, str] = Field(
        default_factory=dict, description="for some columns the name of another one, where their dense cell stands"
    )

    def of(self, place: tuple[str, str]) -> tuple[str, str]:
        return self.row or place[0], self.columns.get(place[1]) or self.column or place[1]


class ExtraColumn(Options):
    """A further column: a number of the records, or the mean distance of several to those of another cell.

    With ``to`` it is the mean over ``keys`` of |mean of the cell - mean of the other|, which says how close two cells come.
    """

    label: str = Field(min_length=1, description='as printed, like "RA %"')
    keys: list[str] = Field(
        min_length=1, description="keys of the record's metrics, account.NAME, or times.NAME for seconds"
    )
    to: Reference | None = Field(None, description="the cell that the distance is to; without it: no distance")
    scale: float = Field(1.0, gt=0, description="printed number over the record's, above 0")
    digits: int = Field(2, ge=0, le=6, description="digits after the point, 0 to 6")

    @model_validator(mode="after")
    def _one_number(self) -> ExtraColumn:
        if self.to is None and len(self.keys) > 1:
            raise ValueError("several keys need a cell that their distance is to")
        return self


class Axis(Options):
    """The figure's x axis where it is neither sparsity nor a count of parameters.

    It is any number of the records, or (``at``) a number that each row (or column) stands for, such as a point of a training.
    With ``along`` the cells along the rows (or columns) are one curve, whatever else differs between them. ``rows`` and
    ``columns`` choose what is drawn, ``claims`` what the figure is about: they stand below it with their verdicts.
    """

    metric: str = Field("", description="a key of the record's metrics, like test.horizon, or account.NAME; without it: at")
    at: dict[str, float] = Field(
        default_factory=dict, description="in place of metric, the number of each row (or column) that curves run along"
    )
    label: str = Field(min_length=1, description='as printed, like "rounds"')
    log: bool = Field(False, description="true for a logarithmic axis")
    log_metric: bool = Field(False, description="true where the metric's own axis is logarithmic, too")
    along: Literal["rows", "columns"] | None = Field(
        None, description='"rows" for a curve per column, "columns" per row'
    )
    rows: list[str] | None = Field(None, description="names of the rows that are drawn; without it: all")
    columns: list[str] | None = Field(None, description="names of the columns that are drawn; without it: all")
    claims: list[str] = Field(default_factory=list, description="claims that the figure shows, like [C1]")

    def draws(self, place: tuple[str, str]) -> bool:
        """True if the figure shows the cell of this row and column."""
        asked = ((self.rows, place[0]), (self.columns, place[1]))
        return all(names is None or name in names for names, name in asked)


class Pictures(Options):
    """The cells whose pictures (of the first seed) stand beside the table: all in these rows and columns."""

    rows: list[str] | None = Field(None, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, description="names of columns; without it: all")


class Excluded(Options):
    """Cells that the table does not have: all in these rows and columns (left out: in any)."""

    rows: list[str] | None = Field(None, description="names of rows")
    columns: list[str] | None = Field(None, description="names of columns")
    reason: str = Field(min_length=1, description="why there is no such cell")


class Deterministic(Options):
    """Cells whose numbers no seed can change: counted from the configuration, or of data and a fit without randomness.

    A claim that rests on such cells alone is compared instead of tested. Seeds that differ all the same are tested.
    """

    rows: list[str] | None = Field(None, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, description="names of columns; without it: all")
    metrics: list[str] | None = Field(None, description="metrics or account.NAME; without it: all")
    reason: str = Field(min_length=1, description="why no seed can change them")

    def meets(self, row: str, column: str, metric: str) -> bool:
        asked = ((self.rows, row), (self.columns, column), (self.metrics, metric))
        return all(names is None or name in names for names, name in asked)


class Extra(Options):
    """Overrides of some cells only, applied after those of their row and column; or of some phases."""

    phases: list[str] | None = Field(None, description="names of phases; with it no cell of the table is meant")
    rows: list[str] | None = Field(None, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, description="names of columns; without it: all")
    tiers: list[str] | None = Field(None, description="names of tiers; without it: all")
    overrides: Overrides = Field(min_length=1, description="overrides, like model.width=8")

    def meets(self, row: str, column: str, tier: str) -> bool:
        asked = ((self.rows, row), (self.columns, column), (self.tiers, tier))
        return self.phases is None and all(names is None or name in names for names, name in asked)

    def meets_phase(self, phase: str, tier: str) -> bool:
        return self.phases is not None and phase in self.phases and (self.tiers is None or tier in self.tiers)


class Published(Options):
    """A number as printed. One that nobody could check (``verified: false``) is shown as such and never compared."""

    row: str
    column: str
    value: float
    provenance: str = Field("", description="where the number was read")
    verified: bool = Field(description="true where somebody read it in the source")
    spread: float | None = Field(None, ge=0, description="the printed standard deviation")


class Tier(Options):
    """The table at one size. ``comparable``: model and data are the paper's, so differences to it are printed."""

    base: Overrides = Field(default_factory=list, description="overrides of every cell")
    rows: list[str] | None = Field(None, min_length=1, description="names of rows; without it: all")
    columns: list[str] | None = Field(None, min_length=1, description="names of columns; without it: all")
    seeds: list[int] = Field(min_length=1, description="seeds, like [0, 1, 2]")
    minutes: float = Field(gt=0, description="expected minutes of the whole table, above 0")
    comparable: bool = Field(False, description="true where model and data are the paper's")
    shared: str = Field(
        "", description="what all seeds share, such as one trained start: conclusions are about it alone"
    )
    note: str = Field("", description="what a reader has to know about this tier")


class Table(Options):
    """A table of a paper. ``base`` are overrides of every cell; rows and columns are named lists of overrides.

    ``phases`` are cells that others start from, as named lists of overrides after the base and the tier's: a value ``{name}``
    in a row, a column, an extra or another phase is the network of that phase for the cell's own seed.
    """

    paper: str
    name: str
    source: Source
    metric: Metric
    base: Overrides = Field(default_factory=list, description="overrides of every cell")
    rows: dict[str, Overrides] = Field(min_length=1, description="overrides for each name")
    columns: dict[str, Overrides] = Field(min_length=1, description="overrides for each name")
    reference: Reference | None = Field(None, description="row and column of the dense cell")
    phases: dict[str, Overrides] = Field(
        default_factory=dict, description="overrides for each name: cells that others start from"
    )
    extra: list[Extra] = Field(default_factory=list, description="overrides of some cells only")
    exclude: list[Excluded] = Field(default_factory=list, description="cells that are not there, with the reason")
    deterministic: list[Deterministic] = Field(
        default_factory=list, description="cells whose numbers no seed can change, with the reason"
    )
    extra_columns: list[ExtraColumn] = Field(default_factory=list, description="columns beside the metric")
    axis: Literal["sparsity", "nonzero"] | Axis = Field(
        "sparsity", description='the figure\'s x axis: "sparsity", "nonzero", or {metric, label} of the records'
    )
    pictures: Pictures | None = Field(None, description="cells whose pictures stand beside the table")
    published: list[Published] = Field(default_factory=list, description="numbers as printed")
    differences: list[str] = Field(
        default_factory=list, description="sentences: what is known to differ from the paper"
    )
    tiers: dict[str, Tier] = Field(min_length=1, description=f"any of {', '.join(TIERS)}")
    claims: list[SerializeAsAny[Claim]] = Field(default_factory=list, description="what the paper says")

    @property
    def output(self) -> str:
        """``<paper>`` for the paper's first table, ``<paper>/<table>`` for a further one."""
        return f"{self.paper}/{self.name}" if self.name else self.paper

    @property
    def label(self) -> str:
        """How a user names the table on the command line."""
        return f"paper={self.output}"

    def dense(self, place: tuple[str, str]) -> tuple[str, str] | None:
        """The place of a cell's dense reference."""
        return self.reference.of(place) if self.reference else None

    def is_deterministic(self, place: tuple[str, str], metric: str | None) -> bool:
        """True where the table declares that no seed can change this metric (None: the table's own) of the cell."""
        return any(item.meets(*place, metric or self.metric.key) for item in self.deterministic)
