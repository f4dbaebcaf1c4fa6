"""N of every M consecutive weights along an axis [no torch]."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from sparselab.core.errors import refuse
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import PATTERNS, Placed, Sparsity
from sparselab.weights.patterns.groups import in_groups, spacing
from sparselab.weights.patterns.layout import AXES, grouped

if TYPE_CHECKING:
    from torch import Tensor


@PATTERNS.register("nm")
@dataclass(frozen=True)
class NOfM(Sparsity):
    """``2:4``: N weights are KEPT of every M consecutive ones along ``targets.axis``.

    Of equal scores the lowest index within the group is kept. A weight holds the pattern where no group has more than N
    non-zeros (a kept weight may be zero), a mask where each keeps exactly N.
    """

    n: int
    m: int

    form = "N:M"
    example = "2:4"
    order = 1
    single = True
    grouped = True
    fixed_count = True

    @classmethod
    def of(cls, n: int, m: int) -> NOfM:
        return cls(n / m, n, m)

    @property
    def sparsity(self) -> float:
        return 1 - self.density

    @property
    def n_of_m(self) -> tuple[int, int]:
        return self.n, self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        match = re.fullmatch(r"(-?\d+):(-?\d+)", value) if isinstance(value, str) else None
        if match is None:
            return None
        n, m = int(match[1]), int(match[2])
        if n < 0 or m < 1:
            refuse(at, "N:M counts weights: N kept of every M", 'write "2:4"')
        if n == 0:
            refuse(at, f"keeps none of every {m}", f'N must be at least 1: write "1:{m}"')
        if n == m:
            refuse(at, f"keeps {n} of every {m}, which is dense", "use method=dense")
        if n > m:
            refuse(at, f"keeps {n} of every {m}: N must be below M", f'for {m} of {n} write "{m}:{n}"')
        return cls.of(n, m)

    @classmethod
    def fix(cls, text: str) -> str | None:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        return f'for {match[1]} kept of {match[2]} write "{match[1]}:{match[2]}"' if match else None

    def misfit(self, layer: Layer, axis: str) -> str | None:
        if axis == "kernel" and layer.kind != "conv":
            return f"{layer.name} is no convolution and has no kernel axis"
        length = grouped(layer.kind, layer.shape, axis)[1]
        if length % self.m == 0:
            return None
        noun = AXES[axis] if length != 1 else AXES[axis].replace("puts", "put").replace("weights", "weight")
        depthwise = " (a depthwise convolution)" if "depthwise" in layer.roles else ""
        return f"{layer.name} has {length} {noun}{depthwise}, not a multiple of {self.m}"

    def require_fit(self, on: Placed, shape: tuple[int, ...]) -> None:
        length = grouped(on.kind, shape, on.axis)[1]
        if length % self.m:
            raise ValueError(f"{length} {AXES[on.axis]} are not a multiple of {self.m}")

    def own_count(self, shape: tuple[int, ...]) -> int:
        return prod(shape) // self.m * self.n

    def mask(self, on: Placed, score: Tensor, density: float, *, checked: bool, magnitude: bool) -> Tensor:
        from sparselab.weights.select import largest_in_groups

        score = score.abs() if magnitude else score
        return largest_in_groups(in_groups(on, score, self.m), self.n).view(tuple(score.shape))

    def in_one_pass(self, on: Placed, score: Tensor, magnitude: bool, out: Tensor | None) -> Tensor | None:
        from sparselab.weights.kernels.dispatch import largest_in_rows

        after = spacing(on, score)
        if after is None:
            return None
        return largest_in_rows(score, score.numel() // (self.m * after), after, self.n, self.m, magnitude, out)

    def holds(self, on: Placed, there: Tensor, is_mask: bool, density: float | None) -> bool:
        count = in_groups(on, there, self.m).sum(1)
        return bool(((count == self.n) if is_mask else (count <= self.n)).all())

    def broken(self, on: Placed, there: Tensor) -> tuple[int, int]:
        counts = in_groups(on, there, self.m).sum(1)
        return int((counts > self.n).sum()), counts.numel()
