"""A rule of block-sparse attention: which tiles of keys a tile of queries computes with. [no torch]"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inference.attention.tiled.tiles import Tiles

PHASES = ("prefill", "decode")


class RuleOptions(Options):
    """The grid that every rule works on."""

    block_q: int = Field(default=128, ge=1, description="queries in a tile when a prompt is read, at least 1")
    block_k: int = Field(default=128, ge=1, description="keys in a tile, at least 1")


class Rule(ABC):
    """Override ``keep``, and what a rule needs to know before.

    ``calibrated``: it is fitted on data to the sparsity that was asked for. ``own_limit``: the option that was given
    instead of a sparsity, where there is one. ``version``: raise it when the rule changes; it is part of a cell's id.
    """

    Options: ClassVar[type[RuleOptions]] = RuleOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    calibrated: ClassVar[bool] = False
    own_limit: str | None = None

    def __init__(self, options: RuleOptions, sparsity: float | None = None):
        self.options = options
        self.sparsity = sparsity

    @abstractmethod
    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        """(n, heads, query tiles, key tiles) bool. Every row that sees a key must be left with one."""


ATTENTIONS: Registry[Rule] = Registry("attention", "sparselab.inference.attention")
