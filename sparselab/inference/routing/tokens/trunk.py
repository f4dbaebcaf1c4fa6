"""The blocks of a network, the halves of each, and a check that tokens can leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2")
"""Names under which libraries keep a block's feed-forward half, or the last layer of it."""


@dataclass
class Trunk:
    """A network and its blocks.

    model:  the network, frozen.
    logits: (n, t) tokens to (n, t, vocabulary).
    blocks: in forward order.
    norm:   after the last block, where there is one.
    attention: the module of each block that attends, as a pass found it.
    """

    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    blocks: Sequence[nn.Module]
    norm: nn.Module | None
    attention: dict[int, nn.Module] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def paths(self) -> list[str]:
        """Names of the blocks in the network."""
        names = {module: name for name, module in self.model.named_modules()}
        return [names[block] for block in self.blocks]

    @property
    def attention_paths(self) -> list[str]:
        """Names of the modules that attend, by block."""
        names = {module: name for name, module in self.model.named_modules()}
        return [names[self.attention[i]] for i in range(self.depth)]

    def feed_forward(self, block: int) -> nn.Module | None:
        """The feed-forward half of a block, or its last layer; None where no name is known."""
        children = dict(self.blocks[block].named_children())
        return next((children[name] for name in FEED_FORWARD if name in children), None)
