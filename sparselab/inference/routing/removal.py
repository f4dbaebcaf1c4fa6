"""Blocks and halves of blocks that no token goes through: ShortGPT and BlockPruner, the baselines of FTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.inference.routing.rule import ROUTINGS, Rule

if TYPE_CHECKING:
    from sparselab.inference.routing.tokens.frozen import Frozen, Routes


class RemovalOptions(Options):
    """Options of a rule that removes parts of a network for all tokens."""

    defaults_from: ClassVar[str] = "routing/_removal"

    remove: int | None = Field(ge=1, description="parts that go, at least 1, or null: the share that sparsity asks for")


class Removal(Rule):
    """Removes the share of the parts that the sparsity asks for, rounded, or as many as ``remove`` says."""

    Options: ClassVar[type[Options]] = RemovalOptions
    each: ClassVar[int] = 1
    """Parts of a block."""
    part: ClassVar[str] = "blocks"

    options: RemovalOptions

    def aimless(self, target: float | None) -> list[Issue]:
        asked = self.options.remove
        if asked is None and not target:
            return [
                Issue(f"routing={self.name}", "has no sparsity to reach", "write sparsity=0.3, or routing.remove=2")
            ]
        if asked is not None and target:
            problem = f"is one goal, and sparsity={target:g} another"
            return [Issue(f"routing.remove={asked}", problem, "leave one of the two out")]
        return []

    def unfit(self, depth: int, target: float | None) -> list[Issue]:
        asked, there = self.options.remove, depth * self.each
        if target and not self.count(depth, target):
            problem = f"rounds to none of {there} {self.part}"
            return [Issue(f"sparsity={target:g}", problem, f"write at least {0.5 / there:.3g}")]
        if asked is None or asked < there:
            return []
        problem = f"asks for {asked} of {there} {self.part}, and one at least has to stay"
        return [Issue(f"routing.remove={asked}", problem, f"write at most {there - 1}")]

    def count(self, depth: int, target: float) -> int:
        """Count the parts that go of a network of ``depth`` blocks: round(S N), and never all."""
        there = depth * self.each
        return self.options.remove or min(int(target * there + 0.5), there - 1)


@ROUTINGS.register("shortgpt")
class ShortGPT(Removal):
    """Removes the blocks that change their input least (Men et al. 2024, arXiv 2403.03853).

    The influence of a block is BI = 1 - mean cos(what it reads, what it puts out) over calibration tokens.
    """

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.removed import least_influence

        return least_influence(self, frozen)

    def read(self, windows: int, depth: int) -> float:
        return float(windows)


@ROUTINGS.register("blockpruner")
class BlockPruner(Removal):
    """Removes halves of blocks, attention or feed-forward, one after another (Zhong et al. 2024, arXiv 2406.10594).

    The next to go is the one without which the perplexity of calibration windows is lowest.
    """

    each = 2
    part = "halves of blocks"

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.removed import one_by_one

        return one_by_one(self, frozen)

    def read(self, windows: int, depth: int) -> float:
        return windows * depth * depth  # about half of the halves go: the sum of what is left each time
