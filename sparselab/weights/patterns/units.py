"""Patterns whose units are several weights, each kept or dropped whole [no torch]."""

from __future__ import annotations

from abc import abstractmethod
from math import prod
from typing import TYPE_CHECKING, ClassVar

from sparselab.core.model_spec import EXPERTS, Layer
from sparselab.core.sparsity import Placed, Sparsity
from sparselab.weights.count import keep_count, nearest_count
from sparselab.weights.patterns.layout import matrix
from sparselab.weights.patterns.matrix import flattened, folded

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Units(Sparsity):
    """The units with the largest sums of scores (in float32 at least) are kept whole; an exact number of them.

    A subclass says which weights make up a unit: :meth:`apart` and ``unit_size``. Of equal sums the unit that comes first
    in :meth:`apart` is kept. A weight holds the pattern where its non-zeros fit into as many units as are asked for.

    unit:    a unit's name in messages, such as "block".
    members: the dimensions of :meth:`apart` along which the members of one unit lie.
    """

    unit: ClassVar[str]
    members: ClassVar[tuple[int, ...]] = (1,)

    @abstractmethod
    def apart(self, on: Placed, tensor: Tensor) -> Tensor:
        """The weight with its units apart; by default (units, members).

        Args:
            on: the kind of weight and its axis
            tensor: (*weight), of any dtype

        Returns:
            (units, members), or a shape with the members on the axes that :meth:`together` expands.
        """

    def together(self, on: Placed, kept: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A decision per unit as a mask of the weight's stored shape.

        Args:
            on: the kind of weight and its axis
            kept: (units,) bool
            shape: of the weight as it is stored

        Returns:
            ``shape`` bool.
        """
        import torch

        places = self.apart(on, torch.arange(prod(shape), device=kept.device).view(shape))
        for dim in self.members:
            kept = kept.unsqueeze(dim)
        mask = torch.zeros(prod(shape), dtype=torch.bool, device=kept.device)
        mask[places] = kept.expand_as(places)
        return mask.view(shape)

    def misfit(self, layer: Layer, axis: str) -> str | None:
        units = layer.numel // self.unit_size(layer.kind, layer.shape)
        if nearest_count(self.density, units) == 0:
            return f"{layer.name} has {units} {self.unit}{'' if units == 1 else 's'} and would keep none"
        return None

    def mask(self, on: Placed, score: Tensor, density: float, *, checked: bool, magnitude: bool) -> Tensor:
        score = score.abs() if magnitude else score
        sums = self.apart(on, score).sum(self.members, dtype=_wide(score.dtype))
        if not checked:
            require_finite(sums)
        kept = largest_of_parts(sums.view(-1), keep_count(sums.numel(), density), on.parts).view(sums.shape)
        return self.together(on, kept, tuple(score.shape))

    def holds(self, on: Placed, there: Tensor, is_mask: bool, density: float | None) -> bool:
        import torch

        units = self.apart(on, there)
        touched = units.amax(self.members)
        if (is_mask or density is None) and not torch.equal(touched, units.amin(self.members)):
            return False
        if density is None:
            return True
        kept, asked = int(touched.sum()), keep_count(touched.numel(), density)
        return kept == asked if is_mask else kept <= asked


class Tiled(Units):
    """Units are equal rectangles of the weight as a matrix (outputs, inputs), numbered by rows."""

    members = (1, 3)

    @abstractmethod
    def tile(self, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """(rows, columns) of the rectangle of :func:`~sparselab.weights.patterns.layout.matrix` that is one unit."""

    def misfit(self, layer: Layer, axis: str) -> str | None:
        (outputs, inputs), (rows, columns) = matrix(layer.kind, layer.shape), self.tile(layer.kind, layer.shape)
        if layer.kind in EXPERTS:
            outputs = layer.outputs  # a block lies in one expert
        if outputs % rows or inputs % columns:
            return f"{layer.name} is {outputs} outputs x {inputs} inputs, not a whole number of {rows}x{columns} blocks"
        return super().misfit(layer, axis)

    def require_fit(self, on: Placed, shape: tuple[int, ...]) -> None:
        for length, step in zip(matrix(on.kind, shape), self.tile(on.kind, shape), strict=True):
            if length % step:
                raise ValueError(f"{self} does not tile shape {shape}")

    def unit_size(self, kind: str, shape: tuple[int, ...]) -> int:
        return prod(self.tile(kind, shape))

    def apart(self, on: Placed, tensor: Tensor) -> Tensor:
        """Cut a weight into tiles.

        Args:
            on: the kind of weight and its axis
            tensor: (*weight), of any dtype

        Returns:
            (row of tiles, row in the tile, column of tiles, column in the tile).
        """
        (outputs, inputs), (rows, columns) = self._sizes(on, tuple(tensor.shape))
        return flattened(on.kind, tensor).reshape(outputs // rows, rows, inputs // columns, columns)

    def together(self, on: Placed, kept: Tensor, shape: tuple[int, ...]) -> Tensor:
        size, (rows, columns) = self._sizes(on, shape)
        flat = kept[:, None, :, None].expand(-1, rows, -1, columns).reshape(size)
        return folded(on.kind, flat, shape).contiguous()

    def _sizes(self, on: Placed, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        return matrix(on.kind, shape), self.tile(on.kind, shape)


def largest_of_parts(values: Tensor, count: int, parts: int, magnitude: bool = False) -> Tensor:
    """Mask of the ``count`` largest of a 1-D tensor, of each part its share: parts lie one behind another.

    Args:
        values: (n,), finite
        count: how many to keep, from 0 to n
        parts: how many parts of equal length ``values`` has
        magnitude: compare sizes, without sign

    Returns:
        (n,) bool.
    """
    import torch

    from sparselab.weights.select import largest

    if parts == 1:
        return largest(values, count, magnitude)
    each, more = divmod(count, parts)
    rows = values.view(parts, -1)
    return torch.cat([largest(row, each + (i < more), magnitude) for i, row in enumerate(rows)])


def require_finite(score: Tensor) -> None:
    """Refuse scores that cannot be ranked.

    Args:
        score: any shape

    Raises:
        ValueError: there is a NaN or an infinity.
    """
    from sparselab.weights.select import all_finite

    if score.dtype.is_floating_point and not bool(all_finite([score])):
        raise ValueError("scores hold NaN or infinite values")


def _wide(dtype: torch.dtype) -> torch.dtype:
    import torch

    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else torch.int64
