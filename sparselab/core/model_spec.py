"""The outline of a model: the layers that could be sparse, their shapes and their cost, without building the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod


@dataclass(frozen=True)
class Layer:
    """One weight that a sparsity pattern may be put on.

    name:   module path; the tensor is ``<name>.weight``. Of ``gates`` the tensor's own path: a recurrent module has several.
    kind:   ``linear`` (out, in) · ``conv`` (out, in / groups, *kernel) · ``conv1d`` (in, out), transformers' GPT-2
            layer · ``embedding`` (rows, width) · ``gates`` (gates x hidden, in), a matrix of a recurrent module.
    shape:  the weight's shape as stored.
    macs:   multiply-accumulates of this weight in the forward pass of ONE sample (an image; a sequence), dense.
    roles:  what it is in the network: ``stem``, ``head``, ``embedding``, ``downsample``, ``depthwise``, ``gates``,
            ``qkv``, ``q``, ``k``, ``v``, ``proj``, ``ff``. A selector ``@role`` picks them.
    groups: of a convolution; each reads input channels of its own.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    roles: frozenset[str] = frozenset()
    groups: int = 1

    @property
    def tensor(self) -> str:
        return self.name if self.kind == "gates" else f"{self.name}.weight"

    @property
    def module(self) -> str:
        """Path of the module that the tensor is a parameter of."""
        return self.tensor.rpartition(".")[0]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def inputs(self) -> int:
        """Size of the input axis (channels of one group for a convolution)."""
        return self.shape[0] if self.kind == "conv1d" else self.shape[1]

    @property
    def outputs(self) -> int:
        return self.shape[1] if self.kind == "conv1d" else self.shape[0]


@dataclass(frozen=True)
class ModelSpec:
    """All layers in forward order, with what the network holds and computes besides them.

    params:  every parameter, tied ones once (weights of ``layers`` included).
    fixed_macs: multiply-accumulates per sample that no weight mask can save, by name (attention products).
    plain_macs: those of the dense network that this one takes the place of at equal cost; None: of none.
    """

    name: str
    layers: tuple[Layer, ...]
    params: int
    fixed_macs: dict[str, int] = field(default_factory=dict)
    plain_macs: int | None = None

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of one sample's forward pass."""
        return sum(layer.macs for layer in self.layers) + sum(self.fixed_macs.values())
