"""2:4 weights in the form that sparse tensor cores multiply with (torch's semi-structured tensors)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparselab.core.sparsity import Sparsity
from sparselab.tools.deploy.form import FORMS, Form, Problem
from sparselab.weights.patterns.pattern import Pattern

ROWS, COLUMNS = 32, 64  # both of torch's backends take multiples of these in half precision
AMPERE = (8, 0)
DTYPES = (torch.float16, torch.bfloat16)


@FORMS.register("semi_structured")
class SemiStructured(Form):
    """Half the weights and their places, on the tensor cores of an NVIDIA GPU of the Ampere generation or later."""

    device = "cuda"
    dtype = torch.bfloat16

    def misfit(self, weight: Tensor) -> Problem | None:
        if weight.ndim != 2 or weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
            shape = " x ".join(map(str, weight.shape))
            return f"{shape} is not a multiple of {ROWS} outputs x {COLUMNS} inputs", "leave this layer dense"
        if weight.dtype not in DTYPES:
            return f"{str(weight.dtype).removeprefix('torch.')} is not multiplied sparsely", "convert it to bfloat16"
        if not Pattern.of(Sparsity.parse("2:4")).holds(weight):
            return "more than 2 of 4 inputs are not zero", "train it with sparsity=2:4 and targets.axis=in"
        if weight.device.type != "cuda" or torch.cuda.get_device_capability(weight.device) < AMPERE:
            return f"{weight.device} has no sparse tensor cores", "use an NVIDIA GPU of the Ampere generation or later"
        return None

    def layer(self, dense: nn.Linear) -> nn.Module:
        """The layer with its weight compressed: ``functional.linear`` then multiplies sparsely."""
        packed = torch.sparse.to_sparse_semi_structured(dense.weight.detach().contiguous())
        dense.weight = nn.Parameter(packed, requires_grad=False)
        return dense
