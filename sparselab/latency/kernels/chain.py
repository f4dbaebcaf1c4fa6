"""A network step by step: convolutions by a kernel, the head by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.latency.kernels.kernel import Layer, Network, Pointwise, Spatial

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.latency.kernels.kernel import Kernel
    from sparselab.latency.workloads.weights import Weighted


def pointwise(one: Weighted) -> Pointwise:
    """What a kernel has to know of a pointwise step."""
    return Pointwise(one.weight[:, :, 0, 0].copy(), one.bias, one.step.pixels, one.clamp)


def chain(kernel: Kernel, layers: list[Weighted]) -> Network:
    """Planes (channels, height, width) all the way, the layout that lets a weight meet a run of pixels.

    A kernel writes into a place of its layer's own, so what a residual adds later is still there.
    """
    calls = [_of(kernel, one) for one in layers]

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


def _of(kernel: Kernel, one: Weighted) -> Layer:
    import torch
    from torch.nn import functional as F

    step = one.step
    if step.kind == "pointwise":
        multiply = kernel.layer(pointwise(one))
        return lambda x: multiply(x.view(step.inputs, -1)).view(1, step.outputs, *step.after)
    if step.kind == "head":
        weight, bias = torch.from_numpy(one.weight), torch.from_numpy(one.bias)
        return lambda x: F.linear(x.mean((2, 3)), weight[:, :, 0, 0], bias)
    return kernel.spatial(Spatial(one.weight, one.bias, step.size, step.stride, step.kind == "depthwise", one.clamp))
