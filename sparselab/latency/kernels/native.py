"""The project's own kernels, after those of Fast Sparse ConvNets (arXiv 1911.09723)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.native_build import compiler
from sparselab.core.options import Options
from sparselab.latency.kernels.kernel import KERNELS, Kernel
from sparselab.latency.kernels.layers import Layer, Pointwise, Spatial

if TYPE_CHECKING:
    import torch

    from sparselab.latency.kernels.spmm.native import Call

TRIES = 5  # runs of each chunk size, of which the fastest counts
BLOCK_OF_FULL = 4  # outputs of a dense 3x3 convolution that share a load, where they divide


@KERNELS.register("native")
class Native(Kernel):
    """Sparse weights times planes of pixels, and 3x3 convolutions on planes, in C with vector instructions; compiled here.

    block: consecutive outputs that share their kept inputs. ``auto`` is XNNPACK's choice: 4, else 2 where at least 90 % of
    the stored weights are non-zero, else 1. vectors: SIMD vectors of pixels that one pass keeps in registers; ``auto`` times
    the sizes that fit, once for each layer. spatial: whose depthwise and first convolutions, its own or ``torch``'s.
    """

    class Options(Options):
        block: Literal["auto", 1, 2, 4] = Field(description="auto, 1, 2 or 4")
        vectors: Literal["auto", 1, 2, 3, 4, 5, 6, 7, 8] = Field(description="auto, or 1 to 8")
        spatial: Literal["native", "torch"] = Field(description="native or torch")

    options: Options

    def issues(self) -> list[Issue]:
        return (
            [] if compiler() else [Issue("kernel=native", "no C compiler is here", "install gcc, or write kernel=csr")]
        )

    def layer(self, pointwise: Pointwise) -> Layer:
        from sparselab.latency.kernels.spmm.native import Multiply
        from sparselab.latency.kernels.spmm.packing import choose_block, pack

        wanted = self.options.block
        block = choose_block(pointwise.weight) if wanted == "auto" else wanted
        packed = pack(pointwise.weight, pointwise.bias, block)
        tried = self._sizes(block)
        return written(fastest(Multiply(packed, pointwise.pixels, pointwise.clamp, vectors) for vectors in tried))

    def spatial(self, spatial: Spatial) -> Layer:
        from sparselab.latency.kernels.spmm.native import Depthwise, Full

        if self.options.spatial == "torch":
            return super().spatial(spatial)
        height, width = spatial.size
        after = -(-height // spatial.stride), -(-width // spatial.stride)
        at = spatial.size, spatial.stride, 1, spatial.clamp, after
        if spatial.depthwise:
            return written(Depthwise(spatial.weight[:, 0], spatial.bias, *at))
        block = 1 if spatial.weight.shape[0] % BLOCK_OF_FULL else BLOCK_OF_FULL
        return written(
            fastest(Full(spatial.weight, spatial.bias, *at, block, vectors) for vectors in self._sizes(block))
        )

    def _sizes(self, block: int) -> list[int]:
        from sparselab.latency.kernels.spmm.native import sizes

        return sizes(block) if self.options.vectors == "auto" else [self.options.vectors]


def written(call: Call) -> Layer:
    """``call`` on tensors, into a place of its own."""
    import torch

    out = torch.empty(call.writes)
    shape = out.shape if out.ndim == 2 else (1, *out.shape)
    given = out.view(shape)

    def layer(x: torch.Tensor) -> torch.Tensor:
        call.at(x.data_ptr(), out.data_ptr())
        return given

    return layer


def fastest(calls: Iterable[Call]) -> Call:
    """The one with the shortest run, on planes of ones."""
    import numpy as np

    made = list(calls)
    if len(made) == 1:
        return made[0]
    x, y = np.ones(made[0].reads, np.float32), np.empty(made[0].writes, np.float32)
    times = [float("inf")] * len(made)
    for _ in range(TRIES):
        for number, one in enumerate(made):
            began = time.perf_counter()
            one(x, y)
            times[number] = min(times[number], time.perf_counter() - began)
    return made[times.index(min(times))]
