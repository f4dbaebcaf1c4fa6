"""The specification of a model: the layers that could be sparse, their shapes and their cost, without building the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

EXPERTS = ("experts", "experts1d")
"""Kinds of layer that hold several matrices in one tensor, along its first dimension."""


@dataclass(frozen=True)
class Layer:
    """One weight that a sparsity pattern may be put on.

    name:   module path; the tensor is ``<name>.weight``. The tensor's own path where it has another name (``own_path``),
            and of ``gates``: a recurrent module has several.
    kind:   ``linear`` (out, in) · ``conv`` (out, in / groups, *kernel) · ``conv1d`` (in, out), transformers' GPT-2
            layer · ``embedding`` (rows, width) · ``gates`` (gates x hidden, in), a matrix of a recurrent module ·
            ``experts`` (experts, out, in) and ``experts1d`` (experts, in, out), the matrices of a mixture's experts.
    shape:  the weight's shape as stored.
    macs:   multiply-accumulates of this weight in the forward pass of ONE sample (an image; a sequence), dense. Of
            experts those of the tokens that reach them.
    roles:  what it is in the network: ``stem``, ``head``, ``embedding``, ``downsample``, ``depthwise``, ``gates``,
            ``qkv``, ``q``, ``k``, ``v``, ``proj``, ``ff``, ``router``. A selector ``@role`` picks them.
    groups: of a convolution, or the number of experts; each reads inputs of its own.
    norm:   module path of the normalisation, channel by channel, of its outputs; "" where there is none.
    readers: the layers that read its outputs and nothing else does, unit by unit, so that a unit can be taken out: each output
            is a run of ``inputs / outputs`` inputs of a reader. Empty where nobody says.
    adds:   name of the residual stream that its outputs are added to, "" where there is none: layers of one stream have the
            same readers, and a unit of one can be taken out with those of all others alone.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    roles: frozenset[str] = frozenset()
    groups: int = 1
    own_path: bool = False
    norm: str = field(default="", compare=False)
    readers: tuple[str, ...] = field(default=(), compare=False)
    adds: str = field(default="", compare=False)

    @property
    def tensor(self) -> str:
        return self.name if self.own_path or self.kind == "gates" else f"{self.name}.weight"

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
        return self.shape[{"conv1d": 0, "experts": 2}.get(self.kind, 1)]

    @property
    def outputs(self) -> int:
        """Size of the output axis (of all groups of a convolution; of one expert)."""
        return self.shape[{"conv1d": 1, "experts": 1, "experts1d": 2}.get(self.kind, 0)]


ADDED = "added"
PRODUCT = "product"
FUNCTION = "function"
UNSEEN = "unseen"


@dataclass(frozen=True)
class Loose:
    """A parameter of two and more dimensions that is no layer, so that no mask can be put on it.

    use: ``added``, in no product (positions, tables of biases) · ``product``, multiplied with in a way that no pattern is
         defined for · ``function``, what is multiplied with is made of it (weight standardisation, weight norm) ·
         ``unseen``, the traced pass did not come to it.
    """

    name: str
    shape: tuple[int, ...]
    use: str = ADDED

    @property
    def numel(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class ModelSpec:
    """All layers in forward order, with what the network holds and computes besides them.

    params:  every parameter, tied ones once (weights of ``layers`` included).
    fixed_macs: multiply-accumulates per sample that no weight mask can save, by name (attention products).
    plain_macs: those of the dense network that this one takes the place of at equal cost; None: of none.
    loose: parameters of two and more dimensions that are none of ``layers``.
    lone_norm: a batch normalisation to which a sample gives one value a channel, as a trace finds it; empty: none is known.
    """

    name: str
    layers: tuple[Layer, ...]
    params: int
    fixed_macs: dict[str, int] = field(default_factory=dict)
    plain_macs: int | None = None
    loose: tuple[Loose, ...] = ()
    lone_norm: str = field(default="", compare=False)

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of one sample's forward pass."""
        return sum(layer.macs for layer in self.layers) + sum(self.fixed_macs.values())
