"""Blocks of RxC weights [no torch]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparselab.core.errors import refuse
from sparselab.core.sparsity import PATTERNS, Sparsity, density_of
from sparselab.weights.patterns.units import Tiled


@PATTERNS.register("block")
@dataclass(frozen=True)
class Block(Tiled):
    """``block:4x1:0.8``: this fraction of the blocks of 4 outputs x 1 input is removed."""

    block: tuple[int, int]

    form = "block"
    example = "block:4x1:0.8"
    order = 2
    unit = "block"

    def __str__(self) -> str:
        return f"block:{self.block[0]}x{self.block[1]}:{self.removed}"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        match = re.fullmatch(r"block:(\d+)x(\d+):(.+)", str(value))
        if match is None:
            return None
        rows, columns = int(match[1]), int(match[2])
        if rows < 1 or columns < 1:
            refuse(at, "a block has at least one row and one column", "write block:4x1:0.8")
        return cls(density_of(match[3], at), (rows, columns))

    def tile(self, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
        return self.block
