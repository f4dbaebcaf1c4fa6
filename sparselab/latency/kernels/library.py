"""Kernels of torch: dense products by oneDNN and MKL, sparse ones by MKL."""

from __future__ import annotations

from sparselab.latency.kernels.kernel import KERNELS, Kernel
from sparselab.latency.kernels.layers import Layer, Pointwise


@KERNELS.register("dense")
class Dense(Kernel):
    """A dense matrix product; the zeros are multiplied like everything else."""

    sparse = False

    def layer(self, pointwise: Pointwise) -> Layer:
        import torch

        weight, bias = torch.from_numpy(pointwise.weight), torch.from_numpy(pointwise.bias)[:, None]
        out = torch.empty(weight.shape[0], pointwise.pixels)
        return lambda x: torch.addmm(bias, weight, x, out=out).clamp_(*pointwise.clamp)


@KERNELS.register("csr")
class CSR(Kernel):
    """``torch.sparse`` in compressed rows; MKL multiplies it where torch was built with MKL."""

    def layer(self, pointwise: Pointwise) -> Layer:
        import warnings

        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the format is in beta
            weight = torch.from_numpy(pointwise.weight).to_sparse_csr()
        bias = torch.from_numpy(pointwise.bias)[:, None]
        return lambda x: torch.mm(weight, x).add_(bias).clamp_(*pointwise.clamp)
