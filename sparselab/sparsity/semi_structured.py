"""2:4 weights in the form that sparse tensor cores multiply with (torch's semi-structured tensors)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparselab.sparsity.pattern import Pattern
from sparselab.spec.faults import Faults
from sparselab.spec.sparsity import Sparsity

ROWS, COLUMNS = 32, 64  # both of torch's backends take multiples of these in half precision
AMPERE = (8, 0)
DTYPES = (torch.float16, torch.bfloat16)


def misfit(weight: Tensor) -> tuple[str, str] | None:
    """(what is wrong, how to mend it) where a weight (outputs, inputs) cannot be compressed; None where it can."""
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


def compress(weight: Tensor) -> Tensor:
    """The weight as a tensor that ``functional.linear`` multiplies sparsely; ValueError where it cannot be."""
    problem = misfit(weight)
    if problem:
        raise ValueError(problem[0])
    return torch.sparse.to_sparse_semi_structured(weight.detach().contiguous())


def compress_layers(network: nn.Module, names: list[str]) -> None:
    """Replace the weights of these linear layers, for inference only. Refused, before any is, with a line per layer."""
    faults, layers = Faults(), []
    for name in names:
        layer = network.get_submodule(name)
        problem: tuple[str, str] | None = ("is no linear layer", "leave it out")
        if isinstance(layer, nn.Linear):
            problem = misfit(layer.weight)
            layers.append(layer)
        if problem:
            faults.add(name, *problem)
    faults.raise_if_any()
    for layer in layers:
        layer.weight = nn.Parameter(compress(layer.weight), requires_grad=False)
