"""Prepares a network for the static router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inference.routing.tokens.decider import ByPosition
from sparselab.inference.routing.tokens.frozen import Frozen, Routes, routes
from sparselab.inference.routing.tokens.shares import allocated, parts_of

if TYPE_CHECKING:
    from sparselab.inference.routing.rule import TokenRule


def prepare(rule: TokenRule, frozen: Frozen) -> Routes:
    """Divide the skipped share among blocks; which tokens go is known then."""
    shares = allocated(rule, frozen)
    return routes(frozen.trunk, ByPosition(shares, parts_of(rule.options)), shares)


def nothing(frozen: Frozen) -> Routes:
    """Leave the network as it is."""
    shares = [0.0] * frozen.trunk.depth
    return routes(frozen.trunk, ByPosition(shares), shares)
