"""What layers read: second moments of their inputs over calibration batches, block after block. [torch]"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sparselab.sparsity.slots import Slot


class _Enough(Exception):
    """Every layer that was asked about has been reached: the rest of the pass is not needed."""


class Calibration:
    """Answers what a layer reads, with the network as it is when asked.

    Layers of one block are looked at together: one pass over the batches, cut off behind the last of them. Who prunes
    block after block, in forward order, so sees each block's inputs as the pruned blocks before it make them. What was
    gathered for a block is let go of when the next one is asked about.

    forward: the network on one batch. batches: makes the batches anew for each pass.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Any], Any],
        slots: Sequence[Slot],
        blocks: Sequence[nn.Module],
        batches: Callable[[], Iterable[Any]],
    ):
        self.network, self.forward, self.batches = network, forward, batches
        owner = {id(module): i for i, block in enumerate(blocks) for module in block.modules()}
        self.modules = {slot.name: network.get_submodule(slot.layer.name) for slot in slots}
        # Layers outside any block are looked at one by one.
        self.groups = {name: owner.get(id(module), name) for name, module in self.modules.items()}
        self.slots = {slot.name: slot for slot in slots}
        self.at: int | str | None = None
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.left: set[str] = set()

    @torch.no_grad()
    def moments(self, slot: Slot) -> Tensor:
        """Mean of x x^T over all positions, float32 (inputs, inputs); of a convolution x is a patch (in, *kernel).

        An embedding reads numbers of tokens, which say nothing about its columns: the identity.
        """
        if slot.layer.kind == "embedding":
            return torch.eye(slot.layer.inputs, device=slot.param.device)
        group = self.groups[slot.name]
        if group != self.at:
            self._gather(group)
        return self.sums[slot.name] / self.counts[slot.name]

    def forget(self) -> None:
        """Let go of what was gathered."""
        self.at, self.sums = None, {}

    def _gather(self, group: int | str) -> None:
        members = [name for name, own in self.groups.items() if own == group]
        self.at, self.sums, self.counts = group, {}, dict.fromkeys(members, 0)
        hooks = [self.modules[name].register_forward_pre_hook(partial(self._read, name)) for name in members]
        training = self.network.training
        self.network.eval()
        try:
            with torch.compiler.set_stance("force_eager"):
                for batch in self.batches():
                    self.left = set(members)
                    with suppress(_Enough):
                        self.forward(batch)
        finally:
            self.network.train(training)
            for hook in hooks:
                hook.remove()

    def _read(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = rows_of(module, inputs[0]).float()
        total = x.T @ x
        self.sums[name] = self.sums[name].add_(total) if name in self.sums else total
        self.counts[name] += len(x)
        self.left.discard(name)
        if not self.left:
            raise _Enough


def rows_of(module: nn.Module, x: Tensor) -> Tensor:
    """The vectors that a layer's weight is multiplied with: (positions, inputs)."""
    if isinstance(module, nn.Conv2d):
        patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
        return patches.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)
