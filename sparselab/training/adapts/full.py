"""Everything trains, with a new head: what the cheap ways of adapting are compared with [no torch]."""

from __future__ import annotations

from sparselab.training.adapts.adapt import ADAPTS, Adapt


@ADAPTS.register("full")
class Full(Adapt):
    """Full fine-tuning: the head of the given weights is left out, another one starts at random, and all parameters train."""

    freezes = False
    fresh_head = True
