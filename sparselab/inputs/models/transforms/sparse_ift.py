"""Sparse iso-FLOP transformations (arXiv 2303.11525): larger layers that cost what the dense one did once they are sparse.

s is the sparsity, d = 1 - s. A layer of n_in inputs (a convolution's: channels x kernel) and n_out outputs has
n_in * n_out weights. Sizes are worked out in whole numbers and fractions, so that 1 - 0.9 is a tenth: a 3x3
convolution of 64 channels gets 576 inner channels at s = 0.9, where the released code's floating point gives 577.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor, prod
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.inputs.models.transform import TRANSFORMS, WHERE, Transform, Transformable, replaceable

if TYPE_CHECKING:
    from torch import nn

    from sparselab.core.data_spec import DataSpec


class IsoFlop(Transform):
    """Base: made for a nominal ``sparsity`` s, at which it costs what the plain network does."""

    class Options(Transform.Options):
        sparsity: float = Field(ge=0, lt=1, description="the sparsity that the network is made for, in [0, 1)")

    options: Options
    closed_form = True

    @property
    def density(self) -> Fraction:
        """1 - s, exactly: s is taken as the decimal that Python prints for it, so that 1 - 0.9 is a tenth."""
        return 1 - Fraction(repr(self.options.sparsity))


@TRANSFORMS.register("sparse_wide")
class SparseWide(IsoFlop):
    """Hidden widths times sqrt(1/d): inner layers grow in both directions, to n_in * n_out / d weights.

    The image's channels and the classes do not grow, and the first and the last layer stay dense and widen in one
    direction: the FLOPs of the whole are only matched by another sparsity than s. ``sparsity=iso`` finds it.
    """

    plain_names = True

    def model_spec(self, family: Transformable, data: DataSpec) -> ModelSpec:
        drawn = _drawn(family.widened(1 / self.density), data)
        return replace(drawn, plain_macs=_drawn(family, data).macs)

    def network(self, family: Transformable, data: DataSpec) -> nn.Module:
        return family.widened(1 / self.density).make(data)


@dataclass(frozen=True)
class Pieces:
    """The replacement of one layer.

    layers: the weights that a mask may be put on. params: how many more parameters the whole has than the layer.
    fixed_macs: of factors that stay dense, by name.
    """

    layers: tuple[Layer, ...]
    params: int
    fixed_macs: dict[str, int] = field(default_factory=dict)


class _LayerByLayer(IsoFlop):
    """Replaces every layer but the stem, the head, embeddings and depthwise ones; shortcuts are replaced too."""

    def pieces(self, layer: Layer) -> Pieces | None:
        """Return the replacement of ``layer``; None if s is so small that it stays as it is."""
        raise NotImplementedError

    def put(self, layer: Layer, module: nn.Module, norm: nn.Module | None) -> nn.Module:
        """The module that replaces ``module``. norm: the one that follows; it is dropped where ``takes_norm``."""
        raise NotImplementedError

    takes_norm = False

    def replaced(self, plain: ModelSpec) -> Iterator[tuple[Layer, Pieces]]:
        for layer in replaceable(plain):
            pieces = self.pieces(layer)
            if pieces is not None:
                yield layer, pieces

    def model_spec(self, family: Transformable, data: DataSpec) -> ModelSpec:
        plain = _drawn(family, data)
        pieces = {layer.name: found for layer, found in self.replaced(plain)}
        layers: list[Layer] = []
        fixed = dict(plain.fixed_macs)
        for layer in plain.layers:
            layers += pieces[layer.name].layers if layer.name in pieces else [layer]
            fixed |= pieces[layer.name].fixed_macs if layer.name in pieces else {}
        params = plain.params + sum(found.params for found in pieces.values())
        return ModelSpec(plain.name, tuple(layers), params, fixed, plain.macs, plain.loose)

    def network(self, family: Transformable, data: DataSpec) -> nn.Module:
        from torch import nn

        model = family.make(data)
        for layer, _ in self.replaced(_drawn(family, data)):
            after = family.norm_after(layer.name)
            norm = None if after is None else model.get_submodule(after)
            model.set_submodule(layer.name, self.put(layer, model.get_submodule(layer.name), norm))
            if self.takes_norm and after is not None:
                model.set_submodule(after, nn.Identity())
        return model


@TRANSFORMS.register("sparse_parallel")
class SparseParallel(_LayerByLayer):
    """1/d branches of (layer, batch normalisation), summed: n_in * n_out / d weights, widths unchanged.

    ``branch_relu: false`` sums what the normalisations give, as the authors' CIFAR code does; ``true`` rectifies inside
    each branch before the sum (and the network rectifies again after it), as their ImageNet code does. A bias stays
    with the first branch: normalisation would cancel it anywhere else.
    """

    class Options(IsoFlop.Options):
        branch_relu: bool = Field(False, description="true: a ReLU inside each branch, before the sum; or false")

    options: Options
    takes_norm = True

    @property
    def branches(self) -> Fraction:
        """How many; :meth:`misfits` refuses what is no whole number."""
        return 1 / self.density

    def misfits(self, family: Transformable, data: DataSpec) -> list[Issue]:
        issues = []
        if self.branches.denominator != 1:
            problem = f"makes {float(self.branches):.4g} branches, and their number is whole"
            issues.append(Issue(f"{WHERE}.sparsity={self.options.sparsity:g}", problem, "write 0.5, 0.75, 0.8 or 0.9"))
        bare = [layer.name for layer in replaceable(_drawn(family, data)) if family.norm_after(layer.name) is None]
        if bare:
            problem = f"no batch normalisation follows {bare[0]}, and every branch ends in one"
            issues.append(Issue(f"{WHERE}.name={self.name}", problem, "use another member, or a model that has them"))
        return issues

    def pieces(self, layer: Layer) -> Pieces | None:
        count = int(self.branches)
        if count == 1:
            return None
        each = (Layer(f"{layer.name}.branches.{j}.layer", layer.kind, layer.shape, layer.macs, layer.roles)
                for j in range(count))  # fmt: skip
        return Pieces(tuple(each), (count - 1) * (layer.numel + 2 * layer.outputs))

    def put(self, layer: Layer, module: nn.Module, norm: nn.Module | None) -> nn.Module:
        from sparselab.inputs.models.enlarged import Branches

        assert norm is not None  # misfits
        return Branches(layer, module, norm, int(self.branches), self.options.branch_relu)


@TRANSFORMS.register("sparse_factorized")
class SparseFactorized(_LayerByLayer):
    """V sigma(U x) with both factors sparse: inner width ceil(n_in n_out / (d (n_in + n_out))).

    Of a k x k convolution U is k x k and V is 1x1. ``uv: bn_relu`` puts batch normalisation and a ReLU between them
    (the released configuration); ``linear`` nothing. ``sparse: u`` keeps V dense: ceil(n_in n_out / (d n_in + n_out)).
    """

    class Options(IsoFlop.Options):
        uv: Literal["bn_relu", "linear"] = Field("bn_relu", description="what lies between: bn_relu or linear")
        sparse: Literal["both", "u"] = Field("both", description="which factors are sparse: both or u")

    options: Options

    def misfits(self, family: Transformable, data: DataSpec) -> list[Issue]:
        if self.options.uv == "linear":
            return []
        spread = [layer.name for layer in replaceable(_drawn(family, data))
                  if layer.kind != "conv" and layer.macs != layer.numel]  # fmt: skip
        if not spread:
            return []
        problem = f"{spread[0]} works on many tokens, which batch normalisation cannot tell apart"
        return [Issue(f"{WHERE}.uv=bn_relu", problem, "write uv: linear")]

    def inner(self, layer: Layer) -> int:
        """Width between the factors."""
        outputs, inputs, d = layer.outputs, layer.numel // layer.outputs, self.density
        per_channel = d * (inputs + outputs) if self.options.sparse == "both" else d * inputs + outputs
        return ceil(layer.numel / per_channel)

    def pieces(self, layer: Layer) -> Pieces:
        first, second = _factors(layer, self.inner(layer))
        norm = 2 * self.inner(layer) if self.options.uv == "bn_relu" else 0
        params = first.numel + second.numel - layer.numel + norm
        if self.options.sparse == "both":
            return Pieces((first, second), params)
        return Pieces((first,), params, {second.name: second.macs})

    def put(self, layer: Layer, module: nn.Module, norm: nn.Module | None) -> nn.Module:
        from sparselab.inputs.models.enlarged import Factors

        return Factors(layer, module, self.inner(layer), self.options.uv == "bn_relu")


@TRANSFORMS.register("sparse_doped")
class SparseDoped(_LayerByLayer):
    """W x + V U x with W sparse and dense factors of rank floor(s n_in n_out / (n_in + n_out)).

    ``dense_factors: false`` lets masks on the factors too: the released code does so (its filter looks at shapes
    only), and its networks then cost less than the dense one.
    """

    class Options(IsoFlop.Options):
        dense_factors: bool = Field(True, description="false: the factors may be sparse too, as in the released code")

    options: Options

    def rank(self, layer: Layer) -> int:
        return floor((1 - self.density) * layer.numel / (layer.numel // layer.outputs + layer.outputs))

    def pieces(self, layer: Layer) -> Pieces | None:
        rank = self.rank(layer)
        if rank == 0:
            return None
        own = Layer(f"{layer.name}.sparse", layer.kind, layer.shape, layer.macs, layer.roles)
        first, second = _factors(layer, rank)
        if self.options.dense_factors:
            fixed = {first.name: first.macs, second.name: second.macs}
            return Pieces((own,), first.numel + second.numel, fixed)
        return Pieces((own, first, second), first.numel + second.numel)

    def put(self, layer: Layer, module: nn.Module, norm: nn.Module | None) -> nn.Module:
        from sparselab.inputs.models.enlarged import Doped

        return Doped(layer, module, self.rank(layer))


def _factors(layer: Layer, inner: int) -> tuple[Layer, Layer]:
    """U and V of ``layer`` as layers of their own; of transformers' Conv1D they are linear layers."""
    if layer.kind == "conv":
        kernel = layer.shape[2:]
        return (
            _part(layer, "u", "conv", (inner, layer.shape[1], *kernel)),
            _part(layer, "v", "conv", (layer.outputs, inner, *(1 for _ in kernel))),
        )
    return _part(layer, "u", "linear", (inner, layer.inputs)), _part(layer, "v", "linear", (layer.outputs, inner))


def _part(layer: Layer, name: str, kind: str, shape: tuple[int, ...]) -> Layer:
    """A layer inside the one that replaces ``layer``, applied at as many positions."""
    return Layer(f"{layer.name}.{name}", kind, shape, prod(shape) * (layer.macs // layer.numel), layer.roles)


def _drawn(family: Transformable, data: DataSpec) -> ModelSpec:
    """The model spec of a plain family; all that can be transformed have one in closed form."""
    model_spec = family.draw(data)
    assert model_spec is not None
    return model_spec
