"""What layers read: second moments of their inputs over calibration batches, block after block. [torch]"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from sparselab.weights.slot import Slot


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
        self.modules = {slot.name: network.get_submodule(slot.layer.module) for slot in slots}
        # Layers outside any block are looked at one by one.
        self.groups = {name: owner.get(id(module), name) for name, module in self.modules.items()}
        self.slots = {slot.name: slot for slot in slots}
        self.at: int | str | None = None
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.left: set[str] = set()

    @torch.no_grad()
    def moments(self, slot: Slot) -> Tensor:
        """Mean of x x^T over all positions, float32 (inputs, inputs); of a convolution x is a patch (in, *kernel), of a
        recurrent matrix the hidden state before a token.

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
        hooks = [self._watch(name) for name in members]
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

    def _watch(self, name: str) -> RemovableHandle:
        module = self.modules[name]
        if name.endswith("weight_hh_l0"):  # of a recurrent module: it reads what the module itself puts out
            return module.register_forward_hook(lambda m, inputs, out: self._take(name, hidden_before(inputs, out[0])))
        return module.register_forward_pre_hook(lambda m, inputs: self._take(name, rows_of(m, inputs[0])))

    def _take(self, name: str, rows: Tensor) -> None:
        x = rows.float()
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


def hidden_before(inputs: tuple[Any, ...], hidden: Tensor) -> Tensor:
    """The vectors that a recurrent matrix is multiplied with: the hidden state before each token, (positions, width).

    inputs: of the module, its starting state second where it has one, else zeros. hidden: (n, t, width), after each token.
    """
    state = inputs[1] if len(inputs) > 1 else None
    first = torch.zeros_like(hidden[:, :1]) if state is None else state[0].transpose(0, 1)
    return torch.cat([first, hidden[:, :-1]], 1).flatten(0, 1)
