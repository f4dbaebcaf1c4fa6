"""Puts a choice of tokens into a network through hooks and transformers' attention interface, and takes it out again."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.inference.routing.tokens.attention import among, received
from sparselab.inference.routing.tokens.decider import Choice, Decider, Part
from sparselab.inference.routing.tokens.ledger import Ledger
from sparselab.inference.routing.tokens.trunk import Trunk

NAME = "sparselab_tokens"
SAME = 1e-3  # largest change of the logits where no token skips anything, of their size


class Routed:
    """``with Routed(trunk, decider) as routed: routed.logits(tokens)``: tokens skip blocks as the decider says.

    A skipped token is neither query nor key of the block, and leaves it as it came. What stays keeps its position, for nothing
    is cut out: skipped keys are hidden from others, and outputs at skipped places are put back. So every network works whose
    attention goes through transformers' interface, windows of a batch may keep different tokens, and no time is saved.
    """

    def __init__(self, trunk: Trunk, decider: Decider):
        self.trunk, self.decider = trunk, decider
        self.ledger = Ledger(trunk.depth)
        self.scores: Tensor | None = None
        self.called: dict[int, nn.Module] = {}
        self._handles: list[Any] = []
        self._at, self._choice, self._hidden = 0, None, None  # type: int, Choice | None, Tensor | None

    def __enter__(self) -> Routed:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        model: Any = self.trunk.model
        self._before = model.config._attn_implementation
        AttentionInterface.register(NAME, self._attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)  # bool masks, and none where plain causality says it all
        model.set_attn_implementation(NAME)
        for i, block in enumerate(self.trunk.blocks):
            self._handles.append(block.register_forward_pre_hook(self._entering(i), with_kwargs=True))
            self._handles.append(block.register_forward_hook(self._leaving))
            halves: tuple[tuple[Part, nn.Module | None], ...] = (
                ("attention", self.trunk.attention.get(i)), ("mlp", self.trunk.feed_forward(i)),
            )  # fmt: skip
            for part, module in halves:
                if module is not None:
                    self._handles.append(module.register_forward_hook(self._half(part)))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.trunk.model.set_attn_implementation(self._before)  # type: ignore[operator]

    def logits(self, tokens: Tensor) -> Tensor:
        """Read windows.

        Args:
            tokens: (n, t) int64

        Returns:
            (n, t, vocabulary) float.
        """
        return self.trunk.logits(tokens)

    def _entering(self, block: int) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            if block == 0:
                self.scores = None
                if self.decider.reads is not None:  # before any block has attended all tokens score alike
                    self.scores = hidden.new_full(hidden.shape[:2], 1 / hidden.shape[1])
            self._at, self._hidden = block, hidden
            self._choice = self.decider.choose(block, hidden, self.scores)
            self.ledger.count(block, len(hidden), self._choice)

        return enter

    def _leaving(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        choice, came = self._choice, self._hidden
        if choice is None or came is None or "block" not in choice.parts:
            return None
        left = output[0] if isinstance(output, tuple) else output
        if choice.gate is None:
            left = torch.where(choice.keep[..., None], left, came)
        else:
            left = came + choice.gate[..., None] * (left - came)
        return (left, *output[1:]) if isinstance(output, tuple) else left

    def _half(self, part: Part) -> Any:
        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            choice = self._choice
            if choice is None or part not in choice.parts:
                return None
            added = output[0] if isinstance(output, tuple) else output
            flat = added.ndim == 2  # some feed-forward halves read all tokens of a batch as one list
            keep = choice.keep.expand(self._hidden.shape[:2])  # type: ignore[union-attr]
            if choice.gate is not None:
                added = added * (choice.gate.reshape(-1, 1) if flat else choice.gate[..., None])
            else:
                added = added.masked_fill(~(keep.reshape(-1, 1) if flat else keep[..., None]), 0)
            return (added, *output[1:]) if isinstance(output, tuple) else added

        return leave

    def _attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float | None = None, dropout: float = 0.0, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        self.called[self._at] = module
        t, choice = query.shape[-2], self._choice
        keep = torch.ones(1, t, dtype=torch.bool, device=query.device)
        if choice is not None and "block" in choice.parts:
            keep = choice.keep
            if not bool(keep.all()):
                attention_mask = among(attention_mask, keep, t)
        if self.decider.reads is not None and self.scores is not None:
            keep = keep.expand(query.shape[0], t)
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            fresh = received(query, key, scale, attention_mask, keep, self.decider.reads)
            self.scores = torch.where(keep, fresh.to(self.scores.dtype), self.scores)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )


class Nothing(Decider):
    """Everything goes through every block."""

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        return None


class _Halves(Decider):
    """Nothing goes through either half of any block."""

    def choose(self, block: int, hidden: Tensor, scores: Tensor | None) -> Choice | None:
        keep = torch.zeros(1, hidden.shape[1], dtype=torch.bool, device=hidden.device)
        return Choice(keep, ("attention", "mlp"))


@torch.no_grad()
def check_applies(trunk: Trunk, rule: str, tokens: Tensor) -> None:
    """Try whether tokens can be routed through a network, and note the module of each block that attends.

    Args:
        trunk: the network
        rule: as typed, for the message
        tokens: (n, t) int64, on which the network is looked at as it is and with nothing skipped

    Raises:
        RunFailed: attention does not go through the interface in every block, or taking part changes the network.
    """
    plain = trunk.logits(tokens).float()
    try:
        with Routed(trunk, Nothing()) as routed:
            whole = routed.logits(tokens).float()
    except (ValueError, AttributeError, NotImplementedError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:60]
        raise RunFailed(f"{rule}: this network's blocks cannot be routed ({reason})") from None
    if len(routed.called) < trunk.depth:
        raise RunFailed(
            f"{rule}: {trunk.depth - len(routed.called)} of {trunk.depth} blocks do not attend through transformers' "
            "interface, so that skipped tokens would still be seen — choose another model"
        )
    change = float((whole - plain).norm() / plain.norm())
    if not change < SAME:
        raise RunFailed(
            f"{rule}: skipping nothing changes this network's logits by {change:.2g} of their size: its attention is more "
            "than scores and a softmax — choose another model"
        )
    trunk.attention = dict(routed.called)


@torch.no_grad()
def check_halves(trunk: Trunk, rule: str, tokens: Tensor) -> None:
    """Try whether the blocks are two halves that add to what comes in.

    Args:
        trunk: the network, as :func:`check_applies` left it
        rule: as typed, for the message
        tokens: (n, t) int64

    Raises:
        RunFailed: a block without its halves is not the identity.
    """
    states: list[tuple[Tensor, Tensor]] = []

    def leaves(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        came = args[0] if args else kwargs["hidden_states"]
        states.append((came, output[0] if isinstance(output, tuple) else output))

    handles = [block.register_forward_hook(leaves, with_kwargs=True) for block in trunk.blocks]
    try:
        with Routed(trunk, _Halves()) as routed:
            routed.logits(tokens)
    finally:
        for handle in handles:
            handle.remove()
    if not all(torch.equal(came, left) for came, left in states):
        problem = "blocks of this network are not attention and feed-forward added to what comes in"
        raise RunFailed(f"{rule}: {problem} — choose a rule that skips whole blocks, or another model")
