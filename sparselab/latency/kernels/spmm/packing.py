"""Sparse weights as Fast Sparse ConvNets packs them (arXiv 1911.09723; XNNPACK src/reference/packing.cc)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCKS = (1, 2, 4)
FULL = 0.9  # a block size is worth its padding from this share of kept weights on


@dataclass(frozen=True)
class Packed:
    """A matrix (outputs, inputs) in blocks of ``block`` consecutive outputs that share their kept inputs.

    first:  the first kept input.
    counts: (blocks,) uint32, kept inputs of each block of outputs.
    steps:  (kept,) int32, from each kept input to the next one, in inputs; the last leads back to the first.
    values: float32; for each block of outputs first its ``block`` biases, then ``block`` values per kept input.
    """

    block: int
    shape: tuple[int, int]
    first: int
    counts: np.ndarray
    steps: np.ndarray
    values: np.ndarray

    @property
    def kept(self) -> int:
        """Stored weights, the zeros that fill blocks up included."""
        return len(self.steps) * self.block


def fill(weight: np.ndarray, block: int) -> float:
    """Return the share of non-zeros among the weights that blocks would store.

    Args:
        weight: (outputs, inputs)
        block: outputs in a block

    Returns:
        From 0 to 1; 0 where blocks do not divide the outputs.
    """
    if weight.shape[0] % block:
        return 0.0
    there = (weight != 0).reshape(-1, block, weight.shape[1])
    stored = int(there.any(1).sum()) * block
    return int(there.sum()) / stored if stored else 1.0


def choose_block(weight: np.ndarray) -> int:
    """The largest block of outputs of which at least 90 % are non-zero (XNNPACK: 4, else 2, else 1).

    Args:
        weight: (outputs, inputs)

    Returns:
        4, 2 or 1.
    """
    return next(block for block in reversed(BLOCKS) if block == 1 or fill(weight, block) >= FULL)


def pays(weights: list[np.ndarray]) -> bool:
    """Tell whether XNNPACK would switch its sparse mode on.

    Args:
        weights: (outputs, inputs) of each 1x1 convolution

    Returns:
        True if more than two thirds of all these weights are zeros.
    """
    params = sum(weight.size for weight in weights)
    zeros = params - sum(int(np.count_nonzero(weight)) for weight in weights)
    return zeros * 3 > params * 2


def pack(weight: np.ndarray, bias: np.ndarray | None = None, block: int = 1) -> Packed:
    """``weight`` (outputs, inputs), ``bias`` (outputs,) or zeros.

    Raises ValueError where ``block`` is none of :data:`BLOCKS` or does not divide the outputs.
    """
    outputs, inputs = weight.shape
    if block not in BLOCKS or outputs % block:
        raise ValueError(f"blocks of {block} outputs do not fit {outputs}")
    bias = np.zeros(outputs) if bias is None else bias
    groups = weight.reshape(-1, block, inputs)
    there = (groups != 0).any(1)
    rows, columns = np.nonzero(there)
    counts = there.sum(1)
    starts = np.cumsum(counts) - counts
    kept = groups[rows, :, columns]  # (kept, block)
    values = np.empty(outputs + kept.size, np.float32)
    at = np.arange(len(rows)) * block + (rows + 1) * block
    for b in range(block):
        values[at + b] = kept[:, b]
    heads = starts * block + np.arange(len(counts)) * block
    for b in range(block):
        values[heads + b] = bias[b::block]
    steps = np.diff(columns, append=columns[:1]).astype(np.int32)
    return Packed(
        block, (outputs, inputs), int(columns[0]) if len(columns) else 0, counts.astype(np.uint32), steps, values
    )
