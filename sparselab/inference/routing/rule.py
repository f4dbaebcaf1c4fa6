"""A rule of token routing: which tokens go through which blocks of a frozen network [no torch]."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sparselab.core.errors import Issue, spell
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.routing.tokens.frozen import Frozen, Routes


class Rule(ABC):
    """Override ``prepare``, and what it needs to know before.

    ``version``: raise it when the rule changes; it is part of a cell's id.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, options: Any):
        self.options = options

    @abstractmethod
    def prepare(self, frozen: Frozen) -> Routes:
        """Find which tokens go where in a network."""

    @abstractmethod
    def aimless(self, target: float | None) -> list[Issue]:
        """Why its goal is none, or not one. target: the sparsity asked for."""

    def unfit(self, depth: int, target: float | None) -> list[Issue]:
        """Why it does not fit a network of ``depth`` blocks. target: the sparsity asked for."""
        return []

    def read(self, windows: int, depth: int) -> float:
        """Windows that preparing reads, about.

        Args:
            windows: of calibration
            depth: blocks of the network
        """
        return 0.0


class TokenRuleOptions(Options):
    """Options of a rule that chooses tokens block by block."""

    defaults_from: ClassVar[str] = "routing/_tokens"

    allocation: Literal["uniform", "influence", "genetic"] = Field(
        description="uniform, influence (more where a block changes its input little) or genetic: the share of each block"
    )
    shares: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        description="share of the tokens that skip each block, in 0..1, or null: allocated"
    )
    protect_first: int = Field(ge=0, description="blocks at the beginning that no token skips, at least 0")
    protect_last: int = Field(ge=0, description="blocks at the end that no token skips, at least 0")
    scope: Literal["block", "mlp"] = Field(description="block or mlp: what a token skips")
    population: int = Field(ge=2, description="allocations of a generation of the search, at least 2")
    generations: int = Field(ge=1, description="generations of the search after the first, at least 1")
    elite: int = Field(ge=1, description="best allocations that stay, at least 1")
    mutation: float = Field(gt=0, description="standard deviation by which a child's shares are moved, above 0")

    @model_validator(mode="after")
    def _ranks(self) -> TokenRuleOptions:
        if self.elite >= self.population:
            raise ValueError("elite has to be below population")
        return self


class TokenRule(Rule):
    """Skips a share s_i of the tokens in block i; the mean of the s_i is the sparsity asked for."""

    Options: ClassVar[type[TokenRuleOptions]] = TokenRuleOptions

    options: TokenRuleOptions

    def aimless(self, target: float | None) -> list[Issue]:
        given = self.options.shares
        if given is None and not target:
            return [Issue(f"routing={self.name}", "has no sparsity to reach", "write sparsity=0.3")]
        if given is not None and target:
            where = f"routing.shares={spell(given)}"
            return [Issue(where, f"is one goal, and sparsity={target:g} another", "leave one of the two out")]
        return []

    def unfit(self, depth: int, target: float | None) -> list[Issue]:
        o = self.options
        first, last = o.protect_first, o.protect_last
        if first + last >= depth:
            key, value = ("protect_first", first) if first >= last else ("protect_last", last)
            problem = f"protects, with the other end's, {first + last} of {depth} blocks: none is left to skip"
            return [Issue(f"routing.{key}={value}", problem, "write fewer")]
        free = depth - first - last
        if target and target * depth > free + 1e-9:
            problem = f"is more than the {free} of {depth} blocks that may be skipped can give"
            return [
                Issue(f"sparsity={target:g}", problem, f"write at most {free / depth:.3g}, or protect fewer blocks")
            ]
        given = o.shares
        if given is None:
            return []
        where = f"routing.shares={spell(given)}"
        if len(given) != depth:
            return [Issue(where, f"names {len(given)} blocks, and the network has {depth}", "give one share a block")]
        held = [i for i, share in enumerate(given) if share and not first <= i < depth - last]
        if held:
            key = "protect_first" if held[0] < first else "protect_last"
            problem = f"skips block {held[0]}, which routing.{key} protects"
            return [Issue(where, problem, f"write 0 for it, or a smaller routing.{key}")]
        return []

    def upper(self, depth: int) -> list[float]:
        """The largest share of each of ``depth`` blocks: 0 of protected ones, else 1."""
        first, end = self.options.protect_first, depth - self.options.protect_last
        return [float(first <= i < end) for i in range(depth)]

    def read(self, windows: int, depth: int) -> float:
        o = self.options
        searched = o.population + o.generations * (o.population - o.elite)
        of = {"uniform": 0, "influence": 1, "genetic": 1 + searched}
        return float(windows * of[o.allocation] if o.shares is None else 0)


ROUTINGS: Registry[Rule] = Registry("routing", "sparselab.inference.routing")


def blocks_of(model_spec: ModelSpec) -> int:
    """The number of blocks of a transformer, as its attention products tell; 0 where they do not."""
    return len(model_spec.fixed_macs)


def kept_count(tokens: int, share: float) -> int:
    """Count the tokens that stay in a block: L - round(s L), and one at least where s is below 1."""
    kept = tokens - math.floor(share * tokens + 0.5 + 1e-9)
    return max(kept, 1 if share < 1 else 0)


def static_order(tokens: int) -> list[int]:
    """The positions in the order in which they are kept: 0, L-1, L-2, …, 1."""
    return [0, *range(tokens - 1, 0, -1)][:tokens]
