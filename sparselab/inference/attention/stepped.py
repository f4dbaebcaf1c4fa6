"""Rules for texts that are written in several passes: full attention first, tiles afterwards [no torch]."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.inference.attention.rule import Rule, RuleOptions, Tiles

if TYPE_CHECKING:
    from torch import Tensor


class SteppedOptions(RuleOptions):
    """From which step on tiles are skipped."""

    skip: float | None = Field(
        ge=0, le=1, description="in [0, 1]: share of a text's steps, the first ones, with full attention; null: none"
    )
    skip_count: Literal["coded", "paper"] = Field(
        description="coded: int(steps skip) + 2 steps, as released; paper: int(steps skip)"
    )


def full_steps(steps: int, skip: float | None, count: str) -> int:
    """How many steps have full attention; more than there are where none has any other.

    ``coded`` is INV-WZQ/SparseD ``modeling_llada.py``: steps 0 to ``int(steps skip) + 1``.
    """
    if skip is None:
        return 0
    return int(steps * skip) + (2 if count == "coded" else 0)


class Stepped(Rule):
    """A rule that begins after ``skip`` of a text's steps. A pass that belongs to no text is under it at once."""

    Options: ClassVar[type[RuleOptions]] = SteppedOptions
    options: SteppedOptions
    saves = 1.0

    @property
    def full(self) -> int:
        """Steps of the text under way with full attention."""
        return 0 if self.at is None else full_steps(self.at.steps, self.options.skip, self.options.skip_count)

    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        if self.at is not None and self.at.number < self.full:
            self.look(tiles)
            return tiles.valid
        return self.choose(tiles)

    def look(self, tiles: Tiles) -> None:
        """See a step of full attention. tiles: as for :meth:`choose`."""

    @abstractmethod
    def choose(self, tiles: Tiles) -> Tensor:
        """Choose the tiles of a step without full attention.

        Args:
            tiles: the scores of a layer, cut into tiles, and where keys may be seen

        Returns:
            (n, heads, query tiles, key tiles) bool; every row that sees a key is left with one.
        """
