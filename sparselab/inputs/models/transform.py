"""A transform: another network in the place of a family's own."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sparselab.core import options as spec_options
from sparselab.core.errors import Issue
from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.core.options import off
from sparselab.core.registry import Registry, build
from sparselab.inputs.models.family import Family
from sparselab.inputs.models.weights import Entry, Part, divide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from sparselab.core.data_spec import DataSpec

WHERE = "model.transform"
KEPT = frozenset({"stem", "head", "embedding", "depthwise"})
"""Roles of layers that no transform touches; they are the ones that ``targets.exclude`` leaves dense by default."""


class Transform:
    """Changes a network. Options are those of the registered class.

    The model spec and the network of a transformed family come from here; the family says only how it is widened
    (:meth:`Transformable.widened`) and which normalisation follows a layer (:meth:`Transformable.norm_after`).

    closed_form: it works on the model spec, so the family has to have one without building the network.
    plain_names: tensors have the names that the network's library knows.
    """

    class Options(spec_options.Options):
        pass

    name: ClassVar[str]
    closed_form: ClassVar[bool] = False
    plain_names: ClassVar[bool] = False
    options: Options

    def __init__(self, options: Options):
        self.options = options

    def issues(self, family: Transformable, data: DataSpec) -> list[Issue]:
        """Why this network of ``family`` cannot be transformed, the plain one."""
        if self.closed_form and family.draw(data) is None:
            problem = f"needs the layers beforehand, and model={family.name} tells them once it is built"
            return [Issue(f"{WHERE}.name={self.name}", problem, "choose another model")]
        return self.misfits(family, data)

    def misfits(self, family: Transformable, data: DataSpec) -> list[Issue]:
        """The member's own reasons."""
        return []

    def part_of(self, tensor: str) -> Part | None:
        """Return the place of ``tensor`` in a larger one of the plain network's file, or None."""
        return None

    def model_spec(self, family: Transformable, data: DataSpec) -> ModelSpec | None:
        """The transformed network; None where only building it can tell. ``family`` is the plain one."""
        raise NotImplementedError

    def network(self, family: Transformable, data: DataSpec) -> nn.Module:
        """The same, built; initial weights from torch's global generator."""
        raise NotImplementedError


TRANSFORMS: Registry[Transform] = Registry("transform", "sparselab.inputs.models.transforms")


class Transformable(Family):
    """Base of families that can be transformed. It stands before the base that says what the family reads."""

    class Options(Family.Options):
        transform: dict[str, Any] | None = off(
            None,
            description="null, or a mapping such as {name: split_qkv} or {name: sparse_wide, sparsity: 0.75}",
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self.transform = None if options.transform is None else build(TRANSFORMS, options.transform, WHERE)

    def plain(self) -> Self:
        """The same family without its transform."""
        return type(self)(self.options.model_copy(update={"transform": None}))

    def widened(self, factor: Fraction) -> Self:
        """The plain family with every hidden width times the square root of ``factor``, as :func:`wider` rounds it."""
        raise NotImplementedError

    def norm_after(self, name: str) -> str | None:
        """The batch normalisation that alone reads layer ``name``'s output, None where there is none."""
        return None

    def issues(self, data: DataSpec) -> list[Issue]:
        found = super().issues(data)
        return found or (self.transform.issues(self.plain(), data) if self.transform else [])

    def compare(self, found: Mapping[str, Entry], model_spec: ModelSpec, where: str) -> list[Issue]:
        if self.transform is not None:
            expected = {layer.tensor: layer.shape for layer in model_spec.layers}
            found, _ = divide(found, expected, self.transform.part_of)
        return super().compare(found, model_spec, where)

    def load(self, model: nn.Module, path: str) -> None:
        """A file of the plain network will do too, where the transform only divides its tensors."""
        from sparselab.inputs.models.load import load_weights

        load_weights(model, path, part_of=self.transform.part_of if self.transform else None, left=self.left)

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """Nothing where the library would not know the tensors: it would put random ones in their place."""
        known = self.transform is None or self.transform.plain_names
        return super().library_config(model) if known else None

    def draw(self, data: DataSpec) -> ModelSpec | None:
        return super().draw(data) if self.transform is None else self.transform.model_spec(self.plain(), data)

    def network(self, data: DataSpec) -> nn.Module:
        return super().network(data) if self.transform is None else self.transform.network(self.plain(), data)


def wider(width: int, factor: Fraction, multiple: int = 1) -> int:
    """``width`` times the square root of ``factor``, rounded down to a multiple of ``multiple``, in whole numbers.

    The authors' code rounds down too: 64 becomes 90, 128 and 202 for factors of 2, 4 and 10.
    """
    square = Fraction(width, multiple) ** 2 * factor
    return isqrt(square.numerator // square.denominator) * multiple


def replaceable(plain: ModelSpec) -> Iterator[Layer]:
    """The layers that members which replace layers one by one do replace."""
    return (layer for layer in plain.layers if not layer.roles & KEPT)
