"""Text whose tokens are hidden behind a mask: its spec, and which tokens are hidden [no torch at import]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sparselab.core.data_types import MaskedTokens, NextTokens, Tokens
from sparselab.core.errors import Issue

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec

IGNORE = -100  # a target that no loss and no metric counts


def masked_view(data: DataSpec, mask: int | None) -> DataSpec:
    """The spec of a text as a network sees it that fills in masked tokens; that of anything else as it is.

    Args:
        data: of the dataset
        mask: the token that stands for a hidden one; None: one more than the data have

    Returns:
        The same data with masked tokens for targets.
    """
    if data.pair != (Tokens, NextTokens):
        return data
    length, known = data.inputs.length, data.inputs.vocabulary
    vocabulary = known + 1 if known and mask is None else known
    inputs = Tokens(length, vocabulary, ordered=data.inputs.ordered)
    return replace(data, inputs=inputs, targets=MaskedTokens(length, vocabulary))


def mask_misfits(seen: DataSpec, mask: int | None, where: str) -> list[Issue]:
    """Why tokens of a text cannot be hidden.

    Args:
        seen: what :func:`masked_view` gave
        mask: as there
        where: the option that says it

    Returns:
        A fault at most.
    """
    known = seen.inputs.vocabulary
    if mask is None and not known:
        problem = "only loading tells how many tokens there are, and the mask would be one more"
        return [Issue(f"{where}=null", problem, "write the number of the network's mask token")]
    if mask is not None and known and mask >= known:
        problem = f"{seen.name} has {known:,} tokens"
        return [Issue(f"{where}={mask}", problem, f"write a number below {known}, or null for one token more")]
    if seen.inputs.ordered:
        problem = "masked tokens are filled in window by window"
        return [Issue("dataset.windows=streams", problem, "write dataset.windows=drawn")]
    return []


def mask_of(seen: DataSpec, mask: int | None) -> int:
    """The token that stands for a hidden one. seen, mask: as in :func:`mask_misfits`."""
    return seen.inputs.vocabulary - 1 if mask is None else mask


def hidden(tokens: Tensor, present: Tensor, hide: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """Hide tokens.

    Args:
        tokens: (n, t) int64
        present: (n, t) bool, False for padding
        hide: (n, t) bool
        mask: the token that stands for a hidden one

    Returns:
        (inputs, targets), both (n, t) int64; targets are -100 where nothing is hidden.
    """
    hide = hide & present
    return tokens.masked_fill(hide, mask), tokens.masked_fill(~hide, IGNORE)
