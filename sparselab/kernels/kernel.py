"""A kernel: one way to compute the 1x1 convolutions of a network whose weights are sparse. [no torch]"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparselab.spec.faults import Fault
from sparselab.spec.options import Options
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sparselab.workloads.weights import Weighted


@dataclass(frozen=True)
class Pointwise:
    """A 1x1 convolution with its bias and clamp folded in.

    weight: (outputs, inputs) float32, zeros where it is pruned. bias: (outputs,). pixels: height x width.
    clamp: (low, high); ReLU6 is (0, 6), none is (-inf, inf). block: outputs that share their kept inputs.
    """

    weight: np.ndarray
    bias: np.ndarray
    pixels: int
    clamp: tuple[float, float]
    block: int = 1


Layer = Callable[["Tensor"], "Tensor"]
"""Planes (inputs, pixels) float32, contiguous, to planes (outputs, pixels)."""

Network = Callable[["Tensor"], "Tensor"]
"""An image (1, channels, height, width) to logits, of any shape with as many entries as there are classes."""


class Kernel:
    """Override :meth:`layer`. One thread, one image at a time: the latency of a phone, or of a server under load.

    sparse: whether time falls with the number of zeros; the others are what it is compared with.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    sparse: ClassVar[bool] = True

    def __init__(self, options: Options):
        self.options = options

    def faults(self) -> list[Fault]:
        """Why it cannot be used on this machine; in well under a second."""
        return []

    def layer(self, pointwise: Pointwise) -> Layer:
        """Whatever can be done once is done here: packing, and the choice of the fastest variant."""
        raise NotImplementedError

    def network(self, layers: list[Weighted]) -> Network:
        """The whole network for one image: pointwise convolutions by :meth:`layer`, the rest by torch."""
        from sparselab.kernels.chain import chain

        return chain(self, layers)


KERNELS: Registry[Kernel] = Registry("kernel", "sparselab.kernels")
