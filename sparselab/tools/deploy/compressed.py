"""Compressed rows and blocks: torch's sparse layouts, multiplied by MKL on a CPU."""

from __future__ import annotations

import warnings
from abc import abstractmethod

import torch
from torch import Tensor, nn

from sparselab.tools.deploy.form import FORMS, Form, Problem

BLOCKS = (32, 16, 8, 4)
FILLED = 0.95
"""Share of the entries of stored blocks that must not be zero, for blocks to be worth storing."""


class Compressed(nn.Module):
    """(..., inputs) -> (..., outputs) by a weight in a compressed layout.

    The product is taken from the weight's side, W x^T: ``functional.linear`` turns such a weight at every call and is
    several times slower.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.reshape(-1, x.shape[-1]).t()
        if self.bias is None:
            product = self.weight @ columns
        else:
            product = torch.addmm(self.bias[:, None].expand(-1, columns.shape[1]), self.weight, columns)
        return product.t().reshape(*x.shape[:-1], -1)


class OnCpu(Form):
    """float32 on a CPU."""

    device = "cpu"
    dtype = torch.float32

    @abstractmethod
    def pack(self, weight: Tensor) -> Tensor:
        """The weight (outputs, inputs) in its layout."""

    def misfit(self, weight: Tensor) -> Problem | None:
        if weight.ndim != 2:
            return f"a weight of {weight.ndim} dimensions is no matrix", "leave this layer dense"
        if weight.dtype != self.dtype:
            return f"{str(weight.dtype).removeprefix('torch.')} is not multiplied sparsely", "convert it to float32"
        if weight.device.type != self.device:
            return f"lies on {weight.device}", "move it to the CPU"
        return None

    def layer(self, dense: nn.Linear) -> nn.Module:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse .* tensor support is in beta")
            return Compressed(self.pack(dense.weight.detach()), dense.bias)


@FORMS.register("csr")
class Rows(OnCpu):
    """Any weight: of each row the values that are not zero and their columns."""

    def pack(self, weight: Tensor) -> Tensor:
        return weight.to_sparse_csr()


@FORMS.register("bsr")
class Blocks(OnCpu):
    """Weights whose zeros come in square blocks: the blocks that are not zero, and their columns."""

    def misfit(self, weight: Tensor) -> Problem | None:
        if problem := super().misfit(weight):
            return problem
        if block_of(weight) is None:
            return "its zeros do not come in blocks", "train it with sparsity=block:16x16:0.9"
        return None

    def pack(self, weight: Tensor) -> Tensor:
        size = block_of(weight)
        assert size is not None, "misfit was asked"
        return weight.to_sparse_bsr((size, size))


def block_of(weight: Tensor) -> int | None:
    """The largest block that fits the shape and of whose stored entries at least :data:`FILLED` are not zero.

    Args:
        weight: (outputs, inputs)
    """
    kept = weight != 0
    for size in BLOCKS:
        if weight.shape[0] % size or weight.shape[1] % size:
            continue
        counts = kept.view(weight.shape[0] // size, size, weight.shape[1] // size, size).sum((1, 3))
        stored = int((counts > 0).sum()) * size * size
        if 0 < stored < weight.numel() and int(counts.sum()) >= FILLED * stored:
            return size
    return None
