"""Modules that stand where one layer stood (see ``transforms/sparse_ift.py``). Imports torch.

``layer`` is the model spec's word for the layer, ``module`` the layer itself: a Linear, a Conv2d or transformers' Conv1D.
New convolutions start as the families' own do (He et al. 2015); new linear layers as torch's.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from sparselab.core.model_spec import Layer


class Branches(nn.Module):
    """The sum of ``count`` branches, each a layer like ``module`` and a normalisation like ``norm``."""

    def __init__(self, layer: Layer, module: nn.Module, norm: nn.Module, count: int, relu: bool):
        super().__init__()
        others = [_entry(layer, module, layer.outputs) for _ in range(count - 1)]
        self.branches = nn.ModuleList(Branch(one, copy.deepcopy(norm), relu) for one in [module, *others])

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        total = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class Branch(nn.Module):
    """A layer, its normalisation and, if asked for, a ReLU."""

    def __init__(self, layer: nn.Module, norm: nn.Module, relu: bool):
        super().__init__()
        self.layer = layer
        self.norm = norm
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.layer(x))
        return y.relu() if self.relu else y


class Factors(nn.Module):
    """V sigma(U x); sigma is batch normalisation and ReLU, or nothing. A bias stays, with V."""

    def __init__(self, layer: Layer, module: nn.Module, inner: int, bn_relu: bool):
        super().__init__()
        norm = nn.BatchNorm2d if layer.kind == "conv" else nn.BatchNorm1d
        self.u = _entry(layer, module, inner)
        self.norm = norm(inner) if bn_relu else None
        self.v = _exit(layer, inner, bias=module.bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.u(x)
        return self.v(y if self.norm is None else self.norm(y).relu())

    def folded(self) -> Tensor | None:
        """V U, of shape (outputs, inputs with their kernel); None where something lies between the factors."""
        if self.norm is not None:
            return None
        return self.v.get_parameter("weight").flatten(1) @ self.u.get_parameter("weight").flatten(1)


class Doped(nn.Module):
    """W x + V U x. ``sparse`` is the layer as it was, with its bias."""

    def __init__(self, layer: Layer, module: nn.Module, rank: int):
        super().__init__()
        self.sparse = module
        self.u = _entry(layer, module, rank)
        self.v = _exit(layer, rank, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.sparse(x) + self.v(self.u(x))


def _entry(layer: Layer, module: nn.Module, outputs: int) -> nn.Module:
    """A layer that reads what ``module`` reads, as it reads it, and has no bias."""
    if not isinstance(module, nn.Conv2d):
        return nn.Linear(layer.inputs, outputs, bias=False)
    made = nn.Conv2d(
        module.in_channels, outputs, module.kernel_size, module.stride, module.padding, bias=False  # type: ignore[arg-type]
    )  # fmt: skip
    nn.init.kaiming_normal_(made.weight)
    return made


def _exit(layer: Layer, inputs: int, bias: bool) -> nn.Module:
    """A layer that gives what ``layer`` gives, from ``inputs`` values at each position."""
    if layer.kind != "conv":
        return nn.Linear(inputs, layer.outputs, bias=bias)
    made = nn.Conv2d(inputs, layer.outputs, 1, bias=bias)
    nn.init.kaiming_normal_(made.weight)
    return made
