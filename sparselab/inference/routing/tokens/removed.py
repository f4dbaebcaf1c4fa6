"""Which blocks, or halves of blocks, go for all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.errors import ConfigError
from sparselab.inference.routing.tokens.decider import Part, Removing
from sparselab.inference.routing.tokens.frozen import Batch, Frozen, Routes, loss, routes
from sparselab.inference.routing.tokens.influence import influences
from sparselab.inference.routing.tokens.routed import check_halves

if TYPE_CHECKING:
    from sparselab.inference.routing.removal import Removal

Half = tuple[int, Part]


def least_influence(rule: Removal, frozen: Frozen) -> Routes:
    """Remove the blocks of least influence."""
    trunk = frozen.trunk
    count = counted(rule, frozen)
    found = influences(trunk.blocks, trunk.logits, [tokens for tokens, _ in frozen.windows("routing")])
    gone = sorted(range(trunk.depth), key=lambda i: found[i])[:count]
    shares = [float(i in gone) for i in range(trunk.depth)]
    measures = {"least_influence": min(found), "largest_influence": max(found)}
    return routes(trunk, Removing(dict.fromkeys(gone, ("block",))), shares, measures=measures)


def one_by_one(rule: Removal, frozen: Frozen) -> Routes:
    """Remove the half without which calibration windows are read best, again and again."""
    trunk = frozen.trunk
    count = counted(rule, frozen)
    windows = frozen.windows("routing")
    check_halves(trunk, f"routing={rule.name}", windows[0][0][:1])
    gone: list[Half] = []
    there: list[Half] = [(i, part) for i in range(trunk.depth) for part in ("attention", "mlp")]
    for _ in range(count):
        frozen.check("between two removals")
        best = min(
            (half for half in there if half not in gone), key=lambda half: without(frozen, [*gone, half], windows)
        )
        gone.append(best)
    shares = [sum(i == block for i, _ in gone) / 2 for block in range(trunk.depth)]
    measures = {"attention_halves": float(sum(part == "attention" for _, part in gone))}
    return routes(trunk, Removing(by_block(gone)), shares, measures=measures)


def without(frozen: Frozen, gone: list[Half], windows: list[Batch]) -> float:
    """The mean cross-entropy of calibration windows without some halves."""
    return loss(frozen, Removing(by_block(gone)), windows)


def by_block(gone: list[Half]) -> dict[int, tuple[Part, ...]]:
    """Group the parts that go by block."""
    found: dict[int, tuple[Part, ...]] = {}
    for block, part in gone:
        found[block] = (*found.get(block, ()), part)
    return found


def counted(rule: Removal, frozen: Frozen) -> int:
    """Count the parts that go; ConfigError where the network has not so many."""
    depth = frozen.trunk.depth
    found = rule.unfit(depth, frozen.target)
    if found:
        raise ConfigError(found)
    return rule.count(depth, frozen.target)
