"""The project's own kernel, after the one of Fast Sparse ConvNets (arXiv 1911.09723)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.kernels.kernel import KERNELS, Kernel, Layer, Pointwise
from sparselab.native import compiler
from sparselab.spec.faults import Fault
from sparselab.spec.options import Options

if TYPE_CHECKING:
    from sparselab.kernels.spmm.native import Multiply

TRIES = 5  # runs of each chunk size, of which the fastest counts


@KERNELS.register("native")
class Native(Kernel):
    """Sparse times dense planes in C with vector instructions, compiled where it runs.

    block: consecutive outputs that share their kept inputs. ``auto`` is XNNPACK's choice: 4, else 2 where at least 90 % of
    the stored weights are non-zero, else 1. vectors: SIMD vectors of pixels that one pass keeps in registers; ``auto`` times
    the sizes that fit, once for each layer.
    """

    class Options(Options):
        block: Literal["auto", 1, 2, 4] = Field("auto", description="auto, 1, 2 or 4")
        vectors: Literal["auto", 1, 2, 3, 4, 5, 6, 7, 8] = Field("auto", description="auto, or 1 to 8")

    options: Options

    def faults(self) -> list[Fault]:
        return (
            [] if compiler() else [Fault("kernel=native", "no C compiler is here", "install gcc, or write kernel=csr")]
        )

    def layer(self, pointwise: Pointwise) -> Layer:
        import torch

        from sparselab.kernels.spmm.packing import choose_block, pack

        wanted = self.options.block
        block = choose_block(pointwise.weight) if wanted == "auto" else wanted
        packed = pack(pointwise.weight, pointwise.bias, block)
        out = torch.empty(pointwise.weight.shape[0], pointwise.pixels)
        best = self._fastest(packed, pointwise)

        def multiply(x: torch.Tensor) -> torch.Tensor:
            best.at(x.data_ptr(), out.data_ptr())
            return out

        return multiply

    def _fastest(self, packed: object, pointwise: Pointwise) -> Multiply:
        import numpy as np

        from sparselab.kernels.spmm.native import Multiply, sizes

        wanted = self.options.vectors
        tried = sizes(packed.block) if wanted == "auto" else [wanted]
        made = [Multiply(packed, pointwise.pixels, pointwise.clamp, vectors) for vectors in tried]
        if len(made) == 1:
            return made[0]
        x = np.ones((pointwise.weight.shape[1], pointwise.pixels), np.float32)
        y = np.empty((pointwise.weight.shape[0], pointwise.pixels), np.float32)
        times = [float("inf")] * len(made)
        for _ in range(TRIES):
            for number, one in enumerate(made):
                began = time.perf_counter()
                one(x, y)
                times[number] = min(times[number], time.perf_counter() - began)
        return made[times.index(min(times))]
