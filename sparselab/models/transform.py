"""A transform: another network in the place of a family's own, made to cost the same once it is sparse."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from sparselab.models.family import Family
from sparselab.spec import options as spec_options
from sparselab.spec.faults import Fault, did_you_mean, refuse
from sparselab.spec.options import validate
from sparselab.spec.outline import Layer, Outline
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from sparselab.spec.dataspec import DataSpec

WHERE = "model.transform"
KEPT = frozenset({"stem", "head", "embedding", "depthwise"})
"""Roles of layers that no transform touches; they are the ones that ``targets.exclude`` leaves dense by default."""


class Transform:
    """Changes a network for a nominal ``sparsity`` s. Options are those of the registered class.

    The outline and the network of a transformed family come from here; the family says only how it is widened
    (:meth:`Transformable.widened`) and which normalisation follows a layer (:meth:`Transformable.norm_after`).
    """

    class Options(spec_options.Options):
        sparsity: float = Field(ge=0, lt=1, description="the sparsity that the network is made for, in [0, 1)")

    name: ClassVar[str]
    options: Options

    def __init__(self, options: Options):
        self.options = options

    @property
    def density(self) -> Fraction:
        """1 - s, exactly: s is taken as the decimal that Python prints for it, so that 1 - 0.9 is a tenth."""
        return 1 - Fraction(repr(self.options.sparsity))

    def misfits(self, family: Transformable, data: DataSpec) -> list[Fault]:
        """Why this network of ``family`` cannot be transformed."""
        return []

    def outline(self, family: Transformable, data: DataSpec) -> Outline:
        """The transformed network. ``family`` is the plain one."""
        raise NotImplementedError

    def network(self, family: Transformable, data: DataSpec) -> nn.Module:
        """The same, built; initial weights from torch's global generator."""
        raise NotImplementedError


TRANSFORMS: Registry[Transform] = Registry("transform", "sparselab.models.transforms")


class Transformable(Family):
    """Base of families that can be transformed. It stands before the base that says what the family reads."""

    class Options(Family.Options):
        transform: dict[str, Any] | None = Field(
            None, description="null, or a mapping such as {name: sparse_wide, sparsity: 0.75}"
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self.transform = None if options.transform is None else _build(options.transform)

    def plain(self) -> Self:
        """The same family without its transform."""
        return type(self)(self.options.model_copy(update={"transform": None}))

    def widened(self, factor: Fraction) -> Self:
        """The plain family with every hidden width times the square root of ``factor``, as :func:`wider` rounds it."""
        raise NotImplementedError

    def norm_after(self, name: str) -> str | None:
        """The batch normalisation that alone reads layer ``name``'s output, None where there is none."""
        return None

    def faults(self, data: DataSpec) -> list[Fault]:
        found = super().faults(data)
        return found or (self.transform.misfits(self.plain(), data) if self.transform else [])

    def draw(self, data: DataSpec) -> Outline | None:
        return super().draw(data) if self.transform is None else self.transform.outline(self.plain(), data)

    def network(self, data: DataSpec) -> nn.Module:
        return super().network(data) if self.transform is None else self.transform.network(self.plain(), data)


def wider(width: int, factor: Fraction, multiple: int = 1) -> int:
    """``width`` times the square root of ``factor``, rounded down to a multiple of ``multiple``, in whole numbers.

    The authors' code rounds down too: 64 becomes 90, 128 and 202 for factors of 2, 4 and 10.
    """
    square = Fraction(width, multiple) ** 2 * factor
    return isqrt(square.numerator // square.denominator) * multiple


def replaceable(plain: Outline) -> Iterator[Layer]:
    """The layers that members which replace layers one by one do replace."""
    return (layer for layer in plain.layers if not layer.roles & KEPT)


def _build(values: dict[str, Any]) -> Transform:
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse(WHERE, "has no name", did_you_mean("", TRANSFORMS))
    cls = TRANSFORMS[name]
    return cls(validate(cls.Options, values, WHERE))
