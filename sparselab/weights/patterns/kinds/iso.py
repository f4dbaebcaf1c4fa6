"""The sparsity at which a transformed network costs what the plain one does [no torch]."""

from __future__ import annotations

from sparselab.core.sparsity import PATTERNS, Sparsity


@PATTERNS.register("iso")
class Iso(Sparsity):
    """``iso``: :func:`sparselab.weights.isoflop.matched` finds the unstructured sparsity that takes its place."""

    form = "iso"
    example = "iso"
    matches_cost = True

    def __str__(self) -> str:
        return "iso"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        return cls(1.0) if str(value).lower() == "iso" else None
