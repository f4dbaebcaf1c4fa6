"""From scores to masks: unstructured, N:M, blocks, channels and input channels, always with an exact count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sparselab.sparsity.count import keep_count
from sparselab.sparsity.kernels import LARGEST_GROUP, largest_in_rows, masked, on_device
from sparselab.sparsity.layout import AXES, grouped, matrix, n_of_m, tile
from sparselab.sparsity.matrix import flattened, folded
from sparselab.sparsity.select import all_finite, largest, largest_in_groups
from sparselab.spec.sparsity import Sparsity

__all__ = ["Pattern", "keep_count", "masks"]


@dataclass(frozen=True)
class Pattern:
    """A sparsity as it lies on one kind of weight.

    sparsity: what is asked for; its ``density`` is the fraction kept.
    kind:     ``linear`` (out, in) · ``conv`` (out, in / groups, *kernel) · ``conv1d`` (in, out) · ``embedding`` ·
              ``experts`` (experts, out, in) · ``experts1d`` (experts, in, out).
    axis:     along which N:M groups run: ``in`` · ``out`` · ``kernel`` (convolutions: the flattened filter).
    parts:    matrices in the tensor that each keep their share, the first ones one more where it does not divide; 1: what
              is kept may lie anywhere in it.

    Blocks and channels lie on the weight as a matrix (outputs, inputs): RxC spans R outputs and C inputs. The inputs of
    a convolution are its filter as stored, flattened (in, *kernel); a channel is one output with its whole filter, an input
    channel what all outputs read of one input.
    """

    sparsity: Sparsity
    kind: str = "linear"
    axis: str = "in"
    parts: int = 1

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(f"axis {self.axis!r} is none of {', '.join(AXES)}")

    @classmethod
    def of(cls, sparsity: Sparsity, kind: str = "linear", axis: str = "in", parts: int = 1) -> Pattern:
        return cls(sparsity, kind, axis, parts)

    @torch.no_grad()
    def mask(
        self,
        score: Tensor,
        density: float | None = None,
        *,
        checked: bool = False,
        magnitude: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """The weights to keep (True): those with the largest scores.

        score:   any real dtype, the weight's stored shape. A block's or channel's score is the sum of its elements'
                 (in float32 at least).
        density: fraction kept in place of the pattern's own; ``keep_count`` makes it a number of weights, blocks or
                 channels. N:M has its fraction in its name and ignores it.
        checked: the caller has made sure of finite scores (:func:`~sparselab.sparsity.select.all_finite` answers for
                 many layers with one wait).
        magnitude: |score| is ranked, without a copy of it where a kernel serves.
        out:     receives ``score * mask``, in the same pass where a kernel serves; may be ``score`` itself.

        The count is exact. Of equal scores the lowest index is kept: of weights the flat index as stored, within each
        N:M group; of blocks the row-major index over (outputs, inputs).

        Raises ValueError for NaN or infinite scores and for a shape that the pattern does not fit.
        """
        self._require_fit(tuple(score.shape))
        mask = self._in_one_pass(score, magnitude, out) if self.sparsity.kind == "nm" else None
        if mask is None:
            mask = self._mask(score, density, checked, magnitude)
            if out is not None:
                masked([score], [mask], [out])
        return mask

    def _in_one_pass(self, score: Tensor, magnitude: bool, out: Tensor | None) -> Tensor | None:
        """N:M by a kernel that reads each score once; None where it does not serve."""
        n, m = n_of_m(self.sparsity)
        after = self.after(score)
        if after is None:
            return None
        return largest_in_rows(score, score.numel() // (m * after), after, n, m, magnitude, out)

    def after(self, tensor: Tensor) -> int | None:
        """How far apart the members of an N:M group lie in memory; None where that is not one number."""
        after = grouped(self.kind, tuple(tensor.shape), self.axis)[2]
        if tensor.is_contiguous() or self.axis == "out":
            return after
        return None if self.axis == "kernel" else 1  # channels_last: the channels lie side by side

    def _mask(self, score: Tensor, density: float | None, checked: bool, magnitude: bool) -> Tensor:
        shape = tuple(score.shape)
        if not checked:
            _require_finite(score)
        if self.sparsity.kind == "dense":
            return torch.ones_like(score, dtype=torch.bool)
        if self.sparsity.kind == "unstructured":
            flat = score.reshape(-1)
            return self._largest(flat, keep_count(len(flat), self._density(density)), magnitude).view(shape)
        score = score.abs() if magnitude else score
        if self.sparsity.kind == "nm":
            return largest_in_groups(self._groups(score), n_of_m(self.sparsity)[0]).view(shape)
        sums = self._tiles(score).sum((1, 3), dtype=_wide(score.dtype))
        if not checked:
            _require_finite(sums)
        kept = self._largest(sums.view(-1), keep_count(sums.numel(), self._density(density))).view(sums.shape)
        return self._spread(kept, shape)

    def _largest(self, values: Tensor, count: int, magnitude: bool = False) -> Tensor:
        """The ``count`` largest, of each part its share: experts lie one behind another, by rows as stored."""
        if self.parts == 1:
            return largest(values, count, magnitude)
        each, more = divmod(count, self.parts)
        rows = values.view(self.parts, -1)
        return torch.cat([largest(row, each + (i < more), magnitude) for i, row in enumerate(rows)])

    @torch.no_grad()
    def holds(self, tensor: Tensor, density: float | None = None) -> bool:
        """Whether a mask (bool) or a weight (anything else; its non-zeros count) has this pattern.

        N:M:   every group keeps exactly N of a mask, at most N of a weight (a kept weight may be zero).
        Block, channel, input channel: each is kept or dropped whole. A weight for which ``density`` is given need only
        fit into that many of them, again because a kept weight may be zero.
        density: the number kept must also be that of ``keep_count`` (a mask) or not exceed it (a weight). Without it,
        unstructured masks of any density hold.
        """
        shape = tuple(tensor.shape)
        self._require_fit(shape)
        is_mask = tensor.dtype == torch.bool
        there = tensor if is_mask else tensor != 0
        if self.sparsity.kind == "dense":
            return not is_mask or bool(there.all())
        if self.sparsity.kind == "nm":
            count, n = self._groups(there).sum(1), n_of_m(self.sparsity)[0]
            return bool(((count == n) if is_mask else (count <= n)).all())
        tiles = self._tiles(there)
        touched = tiles.amax((1, 3))
        if (is_mask or density is None) and not torch.equal(touched, tiles.amin((1, 3))):
            return False
        if density is None:
            return True
        kept, asked = int(touched.sum()), keep_count(touched.numel(), density)
        return kept == asked if is_mask else kept <= asked

    def units(self, shape: Sequence[int]) -> int:
        """Number of things that are kept or dropped one by one: weights (N:M too), blocks or channels."""
        rows, columns = tile(self.sparsity, self.kind, tuple(shape))
        return prod(shape) // (rows * columns)

    def kept(self, shape: Sequence[int], density: float | None = None) -> int:
        """Number of WEIGHTS that :meth:`mask` keeps of a weight of this shape."""
        if self.sparsity.kind == "dense":
            return prod(shape)
        if self.sparsity.kind == "nm":
            n, m = n_of_m(self.sparsity)
            return prod(shape) // m * n
        units = self.units(shape)
        return keep_count(units, self._density(density)) * (prod(shape) // units)

    def _density(self, density: float | None) -> float:
        return self.sparsity.density if density is None else density

    def _require_fit(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or not prod(shape):
            raise ValueError(f"a pattern needs at least two dimensions and an element, not shape {shape}")
        if self.sparsity.kind == "nm":
            length, unit = grouped(self.kind, shape, self.axis)[1], n_of_m(self.sparsity)[1]
            if length % unit:
                raise ValueError(f"{length} {AXES[self.axis]} are not a multiple of {unit}")
        for length, unit in zip(matrix(self.kind, shape), tile(self.sparsity, self.kind, shape), strict=True):
            if length % unit:
                raise ValueError(f"{self.sparsity} does not tile shape {shape}")

    def _groups(self, tensor: Tensor) -> Tensor:
        """(groups, M, after): every N:M group along dimension 1, in the stored order of the weight."""
        before, length, after = grouped(self.kind, tuple(tensor.shape), self.axis)
        m = n_of_m(self.sparsity)[1]
        return tensor.reshape(before * (length // m), m, after)

    def _tiles(self, tensor: Tensor) -> Tensor:
        """(row of tiles, row in the tile, column of tiles, column in the tile)."""
        shape = tuple(tensor.shape)
        rows, columns = tile(self.sparsity, self.kind, shape)
        outputs, inputs = matrix(self.kind, shape)
        return flattened(self.kind, tensor).reshape(outputs // rows, rows, inputs // columns, columns)

    def _spread(self, kept: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A decision per tile as a mask of the weight's stored shape."""
        rows, columns = tile(self.sparsity, self.kind, shape)
        flat = kept[:, None, :, None].expand(-1, rows, -1, columns).reshape(matrix(self.kind, shape))
        return folded(self.kind, flat, shape).contiguous()


@torch.no_grad()
def n_of_m_on_device(
    patterns: Sequence[Pattern], weights: Sequence[Tensor], outs: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor] | None:
    """Masks by magnitude of all layers, their products with the weights into ``outs``, in one launch for all.

    Also a flag per layer, on the device: not 0 where a weight is not finite. None where this is not CUDA, not one N:M
    for all, or not float32 in a plain layout: :meth:`Pattern.mask` then serves, a layer at a time.
    """
    asked = {str(pattern.sparsity) for pattern in patterns}
    if len(asked) != 1 or patterns[0].sparsity.kind != "nm" or weights[0].device.type != "cuda":
        return None
    n, m = n_of_m(patterns[0].sparsity)
    afters = [pattern.after(weight) for pattern, weight in zip(patterns, weights, strict=True)]
    if m > LARGEST_GROUP or None in afters or not on_device(weights, None, outs):
        return None
    from sparselab.sparsity import triton_kernels

    return triton_kernels.n_of_m(weights, [after or 1 for after in afters], n, m, True, outs)


@torch.no_grad()
def masks(
    patterns: Sequence[Pattern],
    scores: Sequence[Tensor],
    densities: Sequence[float | None] | None = None,
    *,
    bundle: bool | None = None,
) -> list[Tensor]:
    """:meth:`Pattern.mask` of many layers, with one wait for the finiteness of all scores.

    Layers that share an N:M are solved together (``bundle``; by default wherever launches cost more than copies, that
    is, off the CPU): the number of kernel launches does not grow with M² times the layers.

    Raises ValueError as :meth:`Pattern.mask` does, naming the position of the first bad score.
    """
    if not scores:
        return []
    if not bool(all_finite(scores)):
        bad = next(i for i, score in enumerate(scores) if not bool(all_finite([score])))
        raise ValueError(f"scores[{bad}] holds NaN or infinite values")
    densities = densities if densities is not None else [None] * len(scores)
    bundle = scores[0].device.type != "cpu" if bundle is None else bundle
    made: dict[int, Tensor] = {}
    if bundle:
        alike: dict[tuple[int, int, torch.dtype, torch.device], list[int]] = {}
        for i, (pattern, score) in enumerate(zip(patterns, scores, strict=True)):
            if pattern.sparsity.kind == "nm":
                key = (*n_of_m(pattern.sparsity), score.dtype, score.device)
                alike.setdefault(key, []).append(i)
        for (n, _, _, _), members in alike.items():
            kept = _bundled([patterns[i] for i in members], [scores[i] for i in members], n)
            made.update(zip(members, kept, strict=True))
    for i, (pattern, score, density) in enumerate(zip(patterns, scores, densities, strict=True)):
        if i not in made:
            made[i] = pattern.mask(score, density, checked=True)
    return [made[i] for i in range(len(scores))]


def _bundled(patterns: list[Pattern], scores: list[Tensor], n: int) -> list[Tensor]:
    for pattern, score in zip(patterns, scores, strict=True):
        pattern._require_fit(tuple(score.shape))
    groups = [pattern._groups(score) for pattern, score in zip(patterns, scores, strict=True)]
    columns = torch.cat([group.transpose(0, 1).flatten(1) for group in groups], 1)  # (M, all groups)
    kept = largest_in_groups(columns[None], n)[0].split([group.shape[0] * group.shape[2] for group in groups], 1)
    return [
        part.view(group.shape[1], group.shape[0], group.shape[2]).transpose(0, 1).reshape(score.shape)
        for part, group, score in zip(kept, groups, scores, strict=True)
    ]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else torch.int64


def _require_finite(score: Tensor) -> None:
    if score.dtype.is_floating_point and not bool(all_finite([score])):
        raise ValueError("scores hold NaN or infinite values")
