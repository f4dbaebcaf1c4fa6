"""Operations on every sparse weight at every update, at memory speed; each function beside its plain definition.

On a CPU the passes are C (``native/``) where it can be compiled, on CUDA one Triton launch for all layers
(``triton_kernels.py``); anything else is torch, an operation at a time. All give the same bits.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sparselab.weights.kernels.native import LARGEST_GROUP, library


def masked(values: Sequence[Tensor], masks: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """Write ``value * mask`` into ``out``, for each layer.

    Args:
        values: (*weight) each, of any float dtype
        masks: (*weight) bool each
        outs: (*weight) each, as ``values``; an ``out`` may be its value
    """
    if on_device(values, masks, outs):
        from sparselab.weights.kernels import triton_kernels

        triton_kernels.masked(values, masks, outs)
        return
    for value, mask, out in zip(values, masks, outs, strict=True):
        kernels = serving(value, mask, out)
        if kernels is None:
            torch.mul(value, mask, out=out)
        else:
            kernels.masked(value.data_ptr(), mask.data_ptr(), out.data_ptr(), value.numel(), torch.get_num_threads())


def count(mask: Tensor) -> int:
    """How many entries of a bool mask are True; on a CPU by numpy, several times as fast as torch."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.sum())


def add_pruned(grads: Sequence[Tensor], weights: Sequence[Tensor], masks: Sequence[Tensor], factor: float) -> None:
    """``grad += factor * weight * (1 - mask)`` for each.

    Args:
        grads: (*weight) each, changed in place
        weights: (*weight) each
        masks: (*weight) bool each
        factor: in the unit of a gradient over a weight
    """
    if on_device(weights, masks, grads):
        from sparselab.weights.kernels import triton_kernels

        triton_kernels.add_pruned(grads, weights, masks, factor)
        return
    for grad, weight, mask in zip(grads, weights, masks, strict=True):
        kernels = serving(weight, mask, grad)
        if kernels is None:
            # A product with 0 or 1 leaves kept weights' gradients as they are, and is faster than a select.
            grad.addcmul_(weight, (~mask).to(weight.dtype), value=factor)
        else:
            places = grad.data_ptr(), weight.data_ptr(), mask.data_ptr()
            kernels.add_pruned(*places, factor, grad.numel(), torch.get_num_threads())


def largest_in_rows(
    score: Tensor, rows: int, after: int, n: int, m: int, magnitude: bool, out: Tensor | None
) -> Tensor | None:
    """N:M of a score that lies in memory as (rows, m, after): the mask. None where no kernel serves.

    magnitude: |score| is ranked. out: receives ``score * mask``, where given, and may be the score where that is ranked
    by size. Of equal scores the lowest index is kept. Raises ValueError for scores that are not finite.
    """
    mask = torch.empty_like(score, dtype=torch.bool)
    kernels = serving(score, mask, out) if m <= LARGEST_GROUP else None
    if kernels is None:
        return None
    places = score.data_ptr(), mask.data_ptr(), 0 if out is None else out.data_ptr()
    if kernels.groups(*places, rows, after, m, n, magnitude, torch.get_num_threads()):
        raise ValueError("scores hold NaN or infinite values")
    return mask


def on_device(values: Sequence[Tensor], masks: Sequence[Tensor] | None, outs: Sequence[Tensor]) -> bool:
    """Tell whether the Triton kernels can read these: as :func:`serving`, on one CUDA device.

    Args:
        values: (*weight) each
        masks: (*weight) each, or None
        outs: (*weight) each
    """
    if not values or values[0].device.type != "cuda" or not triton_found():
        return False
    kinds = [(outs, torch.float32)] + ([] if masks is None else [(masks, torch.bool)])
    return all(
        value.device == values[0].device and value.dtype == torch.float32 and dense_layout(value) for value in values
    ) and all(
        other.device == value.device and other.dtype == dtype and other.stride() == value.stride()
        for others, dtype in kinds
        for value, other in zip(values, others, strict=True)
    )


@cache
def triton_found() -> bool:
    """Return True where Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def serving(values: Tensor, mask: Tensor | None = None, out: Tensor | None = None) -> ctypes.CDLL | None:
    """Return the C kernels where they can read these.

    Args:
        values: (*weight)
        mask: (*weight), if there is one
        out: (*weight), if there is one

    Returns:
        The kernels where all are float32 (the mask bool) on the CPU, in one and the same dense layout; else None.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32 or not dense_layout(values):
        return None
    for tensor, dtype in ((mask, torch.bool), (out, torch.float32)):
        if tensor is not None and (tensor.dtype != dtype or tensor.stride() != values.stride()):
            return None
    return library()


def dense_layout(tensor: Tensor) -> bool:
    """Tell whether its elements fill their memory: contiguous, or a filter in channels_last.

    Args:
        tensor: any shape
    """
    return tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
