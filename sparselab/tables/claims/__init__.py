"""What a paper says, as checks over records. A kind of claim is a class in a module of this package."""

from __future__ import annotations

from sparselab.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point
from sparselab.tables.claims.verdict import ALPHA, POWER, RULE, SEEDS, Verdict, judge

__all__ = ["ALPHA", "CLAIMS", "POWER", "RULE", "SEEDS", "Bound", "Claim", "Layout", "Point", "Verdict", "judge"]
