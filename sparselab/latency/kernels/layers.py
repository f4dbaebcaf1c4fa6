"""The convolutions that a kernel computes, and the functions that it makes of them [no torch]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


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
