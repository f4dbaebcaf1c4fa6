"""How much a block changes what comes in: the Block Influence of ShortGPT (arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def influence(came: Tensor, left: Tensor) -> Tensor:
    """Return 1 - cos of what a block reads and puts out.

    Args:
        came: (..., width)
        left: (..., width)

    Returns:
        (...) float, 0 where a token leaves as it came.
    """
    return 1 - F.cosine_similarity(came.double(), left.double(), dim=-1)


@torch.no_grad()
def influences(
    blocks: Sequence[nn.Module], logits: Callable[[Tensor], Tensor], windows: Sequence[Tensor]
) -> list[float]:
    """Measure the influence of each block.

    Args:
        blocks: of a network, in forward order
        logits: (n, t) int64 to (n, t, vocabulary)
        windows: (n, t) int64 each

    Returns:
        The mean over all tokens, by block.
    """
    totals, n = [0.0] * len(blocks), [0] * len(blocks)

    def watch(i: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            came = args[0] if args else kwargs["hidden_states"]
            left = output[0] if isinstance(output, tuple) else output
            totals[i] += float(influence(came, left).sum())
            n[i] += came.shape[0] * came.shape[1]

        return hook

    handles = [block.register_forward_hook(watch(i), with_kwargs=True) for i, block in enumerate(blocks)]
    try:
        for tokens in windows:
            logits(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return [total / count for total, count in zip(totals, n, strict=True)]
