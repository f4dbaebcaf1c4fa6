"""A rule of block-sparse attention: which tiles of keys a tile of queries computes with [no torch]."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue, spell
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class Tiles:
    """The view of a rule: rows are queries, padded to whole tiles.

    peak:    (n, heads, rows, key tiles) each row's largest score in each tile; minus infinity where it sees no key.
    lengths: (rows,) keys that the call holds for the row.
    scores:  (n, heads, queries, keys) what peaks are taken of, not padded. block_k: keys in a tile. layer, width: number of
             the layer, and channels of one of its heads.
    """

    peak: Tensor
    lengths: Tensor
    block_q: int
    scores: Tensor | None = None
    block_k: int = 0
    layer: int = 0
    width: int = 0

    @cached_property
    def valid(self) -> Tensor:
        """(n, heads, query tiles, key tiles): some row sees some key."""
        return self.by_query_tile(self.peak) > -math.inf

    def by_query_tile(self, rows: Tensor) -> Tensor:
        """Join the rows of each query tile.

        Args:
            rows: (n, heads, rows, key tiles)

        Returns:
            (n, heads, query tiles, key tiles), the largest of each tile's rows.
        """
        return rows.unflatten(2, (-1, self.block_q)).amax(3)


@dataclass(frozen=True)
class Step:
    """A step of a text that is written in several passes over all of it.

    number: from 0. steps: of the text. prompt, generated: tokens that are given, and those behind them that are written.
    """

    number: int
    steps: int
    prompt: int
    generated: int


class RuleOptions(Options):
    """The grid that every rule works on."""

    defaults_from: ClassVar[str] = "attention/_base"

    block_q: int = Field(ge=1, description="queries in a tile when a prompt is read, at least 1")
    block_k: int = Field(ge=1, description="keys in a tile, at least 1")


class Rule(ABC):
    """Override ``keep``, and what a rule needs to know before.

    ``calibrated``: it is fitted on data to the sparsity that was asked for. ``own_limit``: the option that was given
    instead of a sparsity, where there is one. ``version``: raise it when the rule changes; it is part of a cell's id.
    ``needs_steps``: it is for texts that are written in several passes, and has to be told the step. ``saves``: share of a
    skipped tile's two products that it does without; a rule that looks at all scores needs the first.
    """

    Options: ClassVar[type[RuleOptions]] = RuleOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    calibrated: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    saves: ClassVar[float] = 0.5
    own_limit: str | None = None
    at: Step | None = None
    spent: float = 0.0
    """Multiply-accumulates of queries with keys that were made to choose tiles, and for nothing else."""

    def __init__(self, options: RuleOptions, sparsity: float | None = None):
        self.options = options
        self.sparsity = sparsity

    def calibration_lengths(self) -> list[int]:
        """Tokens of the windows that it is fitted on."""
        return []

    def too_long(self, model: str, longest: int | None) -> list[Issue]:
        """A fault where ``model`` reads at most ``longest`` tokens (None: any number) and the fit takes longer windows."""
        lengths = self.calibration_lengths()
        if longest is None or max(lengths, default=0) <= longest:
            return []
        problem = f"is fitted on windows of up to {max(lengths):,} tokens, and {model} reads at most {longest:,}"
        fitting = [length for length in lengths if length <= longest] or [longest]
        return [Issue(f"attention={self.name}", problem, f"write attention.lengths={spell(fitting)}")]

    def begin(self, step: Step) -> None:
        """Hear what the passes from now on are. step: of the texts that are under way."""
        self.at = step

    def measures(self) -> dict[str, float]:
        """Return the numbers that it found out at work, by name."""
        return {}

    @abstractmethod
    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        """Choose the tiles that are computed.

        Args:
            tiles: the scores of a layer, cut into tiles, and where keys may be seen
            phase: ``prefill`` or ``decode``

        Returns:
            (n, heads, query tiles, key tiles) bool, True where a tile is computed. Every row that sees a key must be
                left with one.
        """


ATTENTIONS: Registry[Rule] = Registry("attention", "sparselab.inference.attention")
