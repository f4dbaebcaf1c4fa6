"""From scores to masks, whatever the pattern, always with an exact count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sparselab.core.sparsity import Sparsity
from sparselab.weights.count import keep_count
from sparselab.weights.kernels.dispatch import LARGEST_GROUP, masked, on_device
from sparselab.weights.patterns.groups import in_groups, spacing
from sparselab.weights.patterns.layout import AXES
from sparselab.weights.patterns.units import require_finite
from sparselab.weights.select import all_finite, largest_in_groups

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
        checked: the caller has made sure of finite scores (:func:`~sparselab.weights.select.all_finite` answers for
                 many layers with one wait).
        magnitude: |score| is ranked, without a copy of it where a kernel serves.
        out:     receives ``score * mask``, in the same pass where a kernel serves; may be ``score`` itself.

        The count is exact. Of equal scores the lowest index is kept: of weights the flat index as stored, within each
        N:M group; of blocks the row-major index over (outputs, inputs).

        Raises ValueError for NaN or infinite scores and for a shape that the pattern does not fit.
        """
        self._require_fit(tuple(score.shape))
        mask = self.sparsity.in_one_pass(self, score, magnitude, out)
        if mask is None:
            mask = self._mask(score, density, checked, magnitude)
            if out is not None:
                masked([score], [mask], [out])
        return mask

    def after(self, tensor: Tensor) -> int | None:
        """Return how far apart the members of an N:M group lie in memory; None where that is not one number.

        Args:
            tensor: (*weight), of any dtype
        """
        return spacing(self, tensor)

    def _mask(self, score: Tensor, density: float | None, checked: bool, magnitude: bool) -> Tensor:
        if not checked:
            require_finite(score)
        return self.sparsity.mask(self, score, self._density(density), checked=checked, magnitude=magnitude)

    @torch.no_grad()
    def holds(self, tensor: Tensor, density: float | None = None) -> bool:
        """Tell whether a mask or a weight has this pattern.

        N:M:   every group keeps exactly N of a mask, at most N of a weight (a kept weight may be zero).
        Block, channel, input channel: each is kept or dropped whole. A weight for which ``density`` is given need only
        fit into that many of them, again because a kept weight may be zero.

        Args:
            tensor: (*weight): a mask (bool), or a weight, whose non-zeros count
            density: the number kept must also be that of ``keep_count`` (a mask) or not exceed it (a weight); None:
                unstructured masks of any density hold
        """
        self._require_fit(tuple(tensor.shape))
        is_mask = tensor.dtype == torch.bool
        return self.sparsity.holds(self, tensor if is_mask else tensor != 0, is_mask, density)

    def broken(self, there: Tensor) -> tuple[int, int]:
        """Count the groups (blocks, channels) of non-zeros that break the pattern.

        Args:
            there: (*weight) bool, True where a weight is not zero

        Returns:
            (broken, all) groups.

        Raises:
            ValueError: the pattern does not fit the shape.
        """
        self._require_fit(tuple(there.shape))
        return self.sparsity.broken(self, there)

    def units(self, shape: Sequence[int]) -> int:
        """Number of things that are kept or dropped one by one: weights (N:M too), blocks or channels."""
        return prod(shape) // self.sparsity.unit_size(self.kind, tuple(shape))

    def kept(self, shape: Sequence[int], density: float | None = None) -> int:
        """Number of WEIGHTS that :meth:`mask` keeps of a weight of this shape."""
        own = self.sparsity.own_count(tuple(shape))
        if own is not None:
            return own
        units = self.units(shape)
        return keep_count(units, self._density(density)) * (prod(shape) // units)

    def _density(self, density: float | None) -> float:
        return self.sparsity.density if density is None else density

    def _require_fit(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or not prod(shape):
            raise ValueError(f"a pattern needs at least two dimensions and an element, not shape {shape}")
        self.sparsity.require_fit(self, shape)


@torch.no_grad()
def n_of_m_on_device(
    patterns: Sequence[Pattern], weights: Sequence[Tensor], outs: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor] | None:
    """Make masks by magnitude of all layers, and their products with the weights into ``outs``, in one launch for all.

    None where this is not CUDA, not one N:M for all, or not float32 in a plain layout: :meth:`Pattern.mask` then serves, a
    layer at a time.

    Args:
        patterns: one for each layer
        weights: (*weight) float32 each, on one CUDA device
        outs: as ``weights``; each may be its weight

    Returns:
        (masks, flags): (*weight) bool each; (layers,), not 0 where a weight is not finite. None where the kernel does
            not serve.
    """
    asked = {pattern.sparsity.n_of_m for pattern in patterns}
    shared = asked.pop() if len(asked) == 1 else None
    if shared is None or weights[0].device.type != "cuda":
        return None
    n, m = shared
    afters = [pattern.after(weight) for pattern, weight in zip(patterns, weights, strict=True)]
    if m > LARGEST_GROUP or None in afters or not on_device(weights, None, outs):
        return None
    from sparselab.weights.kernels import triton_kernels

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
            if (asked := pattern.sparsity.n_of_m) is not None:
                alike.setdefault((*asked, score.dtype, score.device), []).append(i)
        for (n, m, _, _), members in alike.items():
            kept = _bundled([patterns[i] for i in members], [scores[i] for i in members], n, m)
            made.update(zip(members, kept, strict=True))
    for i, (pattern, score, density) in enumerate(zip(patterns, scores, densities, strict=True)):
        if i not in made:
            made[i] = pattern.mask(score, density, checked=True)
    return [made[i] for i in range(len(scores))]


def _bundled(patterns: list[Pattern], scores: list[Tensor], n: int, m: int) -> list[Tensor]:
    for pattern, score in zip(patterns, scores, strict=True):
        pattern._require_fit(tuple(score.shape))
    groups = [in_groups(pattern, score, m) for pattern, score in zip(patterns, scores, strict=True)]
    columns = torch.cat([group.transpose(0, 1).flatten(1) for group in groups], 1)  # (M, all groups)
    kept = largest_in_groups(columns[None], n)[0].split([group.shape[0] * group.shape[2] for group in groups], 1)
    return [
        part.view(group.shape[1], group.shape[0], group.shape[2]).transpose(0, 1).reshape(score.shape)
        for part, group, score in zip(kept, groups, scores, strict=True)
    ]
