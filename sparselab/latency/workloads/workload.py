"""A workload: the layers of a network, in order, with shapes; what is timed needs no trained weights [no torch]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

Kind = Literal["stem", "depthwise", "pointwise", "head"]


@dataclass(frozen=True)
class Step:
    """One layer of a workload.

    size: (height, width) of what it reads. activated: clamped to [0, 6]. residual: the last narrow tensor is added to what it
    gives (MobileNet v2).
    """

    kind: Kind
    outputs: int
    inputs: int
    size: tuple[int, int]
    kernel: int = 1
    stride: int = 1
    activated: bool = True
    residual: bool = False

    @property
    def after(self) -> tuple[int, int]:
        """(height, width) of what it gives."""
        if self.kind == "head":
            return 1, 1
        return -(-self.size[0] // self.stride), -(-self.size[1] // self.stride)

    @property
    def narrow(self) -> bool:
        """True if later residuals may add what it gives: the stem and every linear bottleneck."""
        return self.kind == "stem" or (self.kind == "pointwise" and not self.activated)

    @property
    def pixels(self) -> int:
        return self.after[0] * self.after[1]

    @property
    def weights(self) -> int:
        return self.outputs * self.kernel**2 * (1 if self.kind == "depthwise" else self.inputs)

    @property
    def macs(self) -> int:
        return self.weights * self.pixels


class Workload:
    """Override :meth:`steps`. engine: which engine times it."""

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    engine: ClassVar[str] = "measure"

    def __init__(self, options: Any):
        self.options = options

    def steps(self) -> list[Step]:
        """Stem first, head last."""
        raise NotImplementedError


def strangers(engine: str, members: Iterable[tuple[str, Any]]) -> list[Issue]:
    """Members, each with what was written, that belong to another engine than ``engine``."""
    fix = f"choose one of engine={engine}"
    return [Issue(where, f"is for engine={one.engine}", fix) for where, one in members if one.engine != engine]


WORKLOADS: Registry[Workload] = Registry("workload", "sparselab.latency.workloads")
