"""Calibration: second moments of their inputs over calibration batches, block after block [torch]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparselab.core.errors import RunFailed
from sparselab.core.model_spec import EXPERTS
from sparselab.core.products import Products, Use, plain_attention

if TYPE_CHECKING:
    from sparselab.weights.slot import Slot


class _Enough(Exception):
    """Every layer that was asked about has been reached: the rest of the pass is not needed."""


class Calibration:
    """Answers what a layer reads, with the network as it is when asked.

    Layers of one block are looked at together: one pass over the batches, cut off behind the last of them. Who prunes
    block after block, in forward order, so sees each block's inputs as the pruned blocks before it make them. What was
    gathered for a block is let go of when the next one is asked about. A layer or a block that the network uses several
    times counts with all its inputs: one whole pass beforehand tells how often.

    forward: the network on one batch. batches: makes the batches anew for each pass. present: which positions of a batch
    are no padding, bool (n, t), or None for all; a layer that reads a vector at each position is told nothing of padding.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Any], Any],
        slots: Sequence[Slot],
        blocks: Sequence[nn.Module],
        batches: Callable[[], Iterable[Any]],
        present: Callable[[Any], Tensor | None] = lambda batch: None,
    ):
        self.network, self.forward, self.batches, self.present = network, forward, batches, present
        self.there: Tensor | None = (
            None  # of the batch in this pass: its positions in a row, True where one is no padding
        )
        owner = {id(module): i for i, block in enumerate(blocks) for module in block.modules()}
        self.blocks = blocks
        self.modules = {slot.name: network.get_submodule(slot.layer.module) for slot in slots}
        # Layers outside any block are looked at one by one.
        self.groups = {name: owner.get(id(module), name) for name, module in self.modules.items()}
        self.slots = {slot.name: slot for slot in slots}
        self.at: int | str | None = None
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.uses: Counter[int | str] = Counter()  # of layers by name and blocks by number, in one pass
        self.left: Counter[int | str] = Counter()  # of the layers that are looked at and their block, in this pass
        self.patient = False  # what is looked at is not all reached at once

    @torch.no_grad()
    def moments(self, slot: Slot) -> Tensor:
        """Return the mean of x x^T over all positions, float32 (inputs, inputs).

        Of a convolution x is a patch (in, *kernel), of a recurrent matrix the hidden state before a token. In groups, and of
        experts: (groups, inputs, inputs), each group with inputs of its own, each expert with those of the tokens that reach
        it.

        An embedding reads numbers of tokens, which say nothing about its columns: the identity. RunFailed where nothing
        reaches a layer or an expert, and where several inputs are multiplied with parts of one weight.
        """
        if slot.layer.kind == "embedding":
            return torch.eye(slot.layer.inputs, device=slot.param.device)
        group = self.groups[slot.name]
        if group != self.at:
            self._gather(group)
        counts = self.counts[slot.name]
        if not bool((counts > 0).all()):
            which = "it" if counts.numel() == 1 else f"its group {int(counts.argmin())}"
            raise RunFailed(
                f"{slot.name}: none of the calibration examples reaches {which} — raise method.samples, or exclude it"
            )
        return self.sums[slot.name] / (counts[0] if counts.numel() == 1 else counts[:, None, None])

    def forget(self) -> None:
        """Let go of what was gathered."""
        self.at, self.sums = None, {}

    def _gather(self, group: int | str) -> None:
        members = [
            name for name, own in self.groups.items() if own == group and self.slots[name].layer.kind != "embedding"
        ]
        self.at, self.sums, self.counts = group, {}, {name: self._zero(name) for name in members}
        recurrent = [name for name in members if self.slots[name].layer.kind == "gates"]
        weights = {name: self.slots[name].param for name in members if name not in recurrent}
        self.patient = any(self.slots[name].layer.kind in EXPERTS for name in members)
        if not self.uses:
            self._count()
        parts: list[int | str] = [*members, group] if isinstance(group, int) else [*members]
        hooks = [self._watch(name) for name in recurrent]
        if isinstance(group, int):
            hooks.append(self.blocks[group].register_forward_hook(lambda *_: self._reached(group)))
        with self._looking(hooks):
            for batch in self.batches():
                there = self.present(batch)
                self.there = None if there is None else there.flatten()
                self.left = Counter({part: self.uses[part] for part in parts if self.uses[part]})
                with suppress(_Enough), Products(weights, self._seen):
                    self.forward(batch)

    def _count(self) -> None:
        """How often a pass uses each layer and each block."""

        def seen(uses: list[Use] | None, operation: Any) -> None:
            self.uses.update(use.name for use in uses or ())

        def count(part: int | str) -> Callable[..., None]:
            return lambda *_: self.uses.update([part])

        recurrent = {name for name, slot in self.slots.items() if slot.layer.kind == "gates"}
        hooks = [self.modules[name].register_forward_hook(count(name)) for name in recurrent]
        hooks += [block.register_forward_hook(count(i)) for i, block in enumerate(self.blocks)]
        weights = {name: slot.param for name, slot in self.slots.items() if name not in recurrent}
        with self._looking(hooks), Products(weights, seen):
            self.forward(next(iter(self.batches())))

    @contextmanager
    def _looking(self, hooks: Sequence[RemovableHandle]) -> Iterator[None]:
        """Inside, the network evaluates, module by module; the hooks are removed at the end."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.compiler.set_stance("force_eager"), plain_attention():
                yield
        finally:
            self.network.train(training)
            for hook in hooks:
                hook.remove()

    def _zero(self, name: str) -> Tensor:
        slot = self.slots[name]
        return torch.zeros(slot.layer.groups, dtype=torch.int64, device=slot.param.device)

    def _seen(self, uses: list[Use] | None, operation: Any) -> None:
        for use in uses or ():
            layer = self.slots[use.name].layer
            if use.kind != layer.kind or not use.whole:
                raise RunFailed(
                    f"{use.name}: parts of it are multiplied with inputs of their own, which are not told apart"
                    " — exclude it (targets.exclude), or use a method that needs no calibration"
                )
            for group, rows in use.rows():
                self._add(use.name, rows, group)
        for use in uses or ():
            self._reached(use.name)

    def _watch(self, name: str) -> RemovableHandle:
        def take(rows: Tensor) -> None:
            self._add(name, rows, None)
            self._reached(name)

        module = self.modules[name]
        if name.endswith("weight_hh_l0"):  # of a recurrent module: it reads what the module itself puts out
            return module.register_forward_hook(lambda m, inputs, out: take(hidden_before(inputs, out[0])))
        return module.register_forward_pre_hook(lambda m, inputs: take(inputs[0].flatten(0, -2)))

    def _add(self, name: str, rows: Tensor, group: int | None) -> None:
        """More rows (positions, inputs), of all groups (groups, positions, inputs) or of the ``group`` alone."""
        x = rows.float()
        groups = len(self.counts[name])
        if self.there is not None and groups == 1 and x.shape[-2] == len(self.there):
            x = x[..., self.there, :]
        total = x.mT @ x
        if name not in self.sums:
            whole = group is None or groups == 1
            self.sums[name] = total if whole else total.new_zeros(groups, *total.shape)
            if whole:
                self.counts[name] += x.shape[-2]
                return
        if group is None or groups == 1:
            self.sums[name] += total
            self.counts[name] += x.shape[-2]
        else:
            self.sums[name][group] += total
            self.counts[name][group] += len(x)

    def _reached(self, part: int | str) -> None:
        self.left[part] -= 1
        if max(self.left.values()) <= 0 and not (self.patient and isinstance(self.at, str)):
            raise _Enough


def hidden_before(inputs: tuple[Any, ...], hidden: Tensor) -> Tensor:
    """The vectors that a recurrent matrix is multiplied with: the hidden state before each token, (positions, width).

    inputs: of the module, its starting state second where it has one, else zeros. hidden: (n, t, width), after each token.
    """
    state = inputs[1] if len(inputs) > 1 else None
    first = torch.zeros_like(hidden[:, :1]) if state is None else state[0].transpose(0, 1)
    return torch.cat([first, hidden[:, :-1]], 1).flatten(0, 1)
