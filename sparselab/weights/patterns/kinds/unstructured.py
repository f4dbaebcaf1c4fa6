"""Any weights, a fraction of them [no torch]."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sparselab.core.errors import refuse
from sparselab.core.sparsity import PATTERNS, Placed, Sparsity, density_of
from sparselab.weights.count import keep_count
from sparselab.weights.patterns.units import largest_of_parts

if TYPE_CHECKING:
    from torch import Tensor

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@PATTERNS.register("unstructured")
class Unstructured(Sparsity):
    """``0.9``: this fraction of the weights goes, wherever they are. ``0`` is dense.

    Of equal scores the lowest flat index, as stored, is kept.
    """

    form = "a fraction"
    example = "0.9"
    order = 0
    free = True
    single = True

    def __str__(self) -> str:
        return self.removed

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        if isinstance(value, str):
            if not NUMBER.fullmatch(value):
                return None
            value = float(value) if re.search(r"[.e]", value, re.IGNORECASE) else int(value)
        if isinstance(value, int) and value > 1:
            n, m = divmod(value, 60)  # YAML 1.1 reads an unquoted 2:4 as base 60
            if 0 < n < m:
                percent = f", and for {value} % write 0.{value:02d}" if value < 100 else ""
                refuse(at, f"looks like an unquoted {n}:{m}", f'write "{n}:{m}" in quotes{percent}')
        density = density_of(value, at)
        return Sparsity.parse("dense") if density == 1 else cls(density)

    @classmethod
    def fix(cls, text: str) -> str | None:
        match = re.fullmatch(r"(\d\d?(\.\d+)?) ?%", text)
        return f"for {match[1]} % write {float(match[1]) / 100:.10g}" if match else None

    def mask(self, on: Placed, score: Tensor, density: float, *, checked: bool, magnitude: bool) -> Tensor:
        flat = score.reshape(-1)
        return largest_of_parts(flat, keep_count(len(flat), density), on.parts, magnitude).view(tuple(score.shape))

    def holds(self, on: Placed, there: Tensor, is_mask: bool, density: float | None) -> bool:
        if density is None:
            return True
        kept, asked = int(there.sum()), keep_count(there.numel(), density)
        return kept == asked if is_mask else kept <= asked
