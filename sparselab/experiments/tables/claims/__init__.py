"""A paper's claims, as checks over records. A kind of claim is a class in a module of this package."""

from __future__ import annotations

from sparselab.experiments.tables.claims.claim import CLAIMS, Bound, Claim, Layout, Point
from sparselab.experiments.tables.claims.verdict import ALPHA, POWER, RULE, SEEDS, Verdict, judge

__all__ = ["ALPHA", "CLAIMS", "POWER", "RULE", "SEEDS", "Bound", "Claim", "Layout", "Point", "Verdict", "judge"]
