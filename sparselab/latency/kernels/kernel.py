"""A kernel: one way to compute the convolutions of a network whose 1x1 weights are sparse. [no torch]"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparselab.core.errors import Fault
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sparselab.latency.workloads.weights import Weighted


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


@dataclass(frozen=True)
class Spatial:
    """A 3x3 convolution of the same network, dense, with its bias and clamp folded in and zeros around.

    weight: (outputs, inputs per group, 3, 3) float32; depthwise where an output reads one input. size: (height, width) of what
    it reads; what it gives is that over ``stride``, rounded up.
    """

    weight: np.ndarray
    bias: np.ndarray
    size: tuple[int, int]
    stride: int
    depthwise: bool
    clamp: tuple[float, float]


Layer = Callable[["Tensor"], "Tensor"]
"""Planes float32, contiguous, to planes: (inputs, pixels) to (outputs, pixels) for a 1x1 convolution, (1, inputs, height,
width) to (1, outputs, height, width) for a 3x3 one."""

Network = Callable[["Tensor"], "Tensor"]
"""An image (1, channels, height, width) to logits, of any shape with as many entries as there are classes."""


class Kernel:
    """Override :meth:`layer`, and :meth:`spatial` where it has 3x3 convolutions of its own.

    One thread, one image at a time: the latency of a phone, or of a server under load.

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

    def spatial(self, spatial: Spatial) -> Layer:
        """The same for a 3x3 convolution; torch's, if it has none of its own."""
        import torch
        from torch.nn import functional as F

        weight, bias = torch.from_numpy(spatial.weight), torch.from_numpy(spatial.bias)
        groups = weight.shape[0] if spatial.depthwise else 1
        return lambda x: F.conv2d(x, weight, bias, spatial.stride, 1, groups=groups).clamp_(*spatial.clamp)

    def network(self, layers: list[Weighted]) -> Network:
        """The whole network for one image: convolutions by :meth:`layer` and :meth:`spatial`, the head by torch."""
        from sparselab.latency.kernels.chain import chain

        return chain(self, layers)


KERNELS: Registry[Kernel] = Registry("kernel", "sparselab.latency.kernels")
