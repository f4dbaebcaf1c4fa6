"""A network step by step: convolutions by a kernel, the head by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sparselab.latency.kernels.layers import Layer, Network, Pointwise, Spatial

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.latency.workloads.weights import Weighted


def pointwise(one: Weighted) -> Pointwise:
    """Return a pointwise step as a kernel sees it."""
    return Pointwise(one.weight[:, :, 0, 0].copy(), one.bias, one.step.pixels, one.clamp)


def chain(
    layers: list[Weighted], multiply: Callable[[Pointwise], Layer], convolve: Callable[[Spatial], Layer]
) -> Network:
    """Return the whole network as one function of an image.

    multiply, convolve: make the functions of a 1x1 and of a 3x3 convolution. Planes (channels, height, width) all the way,
    the layout that lets a weight meet a run of pixels. A kernel writes into a place of its layer's own, so what a residual
    adds later is still there.
    """
    calls = [_of(one, multiply, convolve) for one in layers]

    def run(image: Tensor) -> Tensor:
        x = narrow = image
        for one, call in zip(layers, calls, strict=True):
            x = call(x)
            if one.step.residual:
                x = x + narrow
            if one.step.narrow:
                narrow = x
        return x

    return run


def _of(one: Weighted, multiply: Callable[[Pointwise], Layer], convolve: Callable[[Spatial], Layer]) -> Layer:
    import torch
    from torch.nn import functional as F

    step = one.step
    if step.kind == "pointwise":
        product = multiply(pointwise(one))
        return lambda x: product(x.view(step.inputs, -1)).view(1, step.outputs, *step.after)
    if step.kind == "head":
        weight, bias = torch.from_numpy(one.weight), torch.from_numpy(one.bias)
        return lambda x: F.linear(x.mean((2, 3)), weight[:, :, 0, 0], bias)
    return convolve(Spatial(one.weight, one.bias, step.size, step.stride, step.kind == "depthwise", one.clamp))
