"""A network that has read a text so far: its cache of keys and values, which can go back, branch and be rewritten."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.inference.activation.frozen.masking import Masking, Mode
from sparselab.inference.attention.tiled.attach import Attached


@dataclass
class Rules:
    """The rules on a network, which can be taken off for a pass.

    masking: of a rule on activations. attached: of a rule on attention. None where there is none. at_work: whether attention is
    under its rule at the moment.
    """

    masking: Masking | None = None
    attached: Attached | None = None
    at_work: bool = True

    def __bool__(self) -> bool:
        return self.masking is not None or self.attached is not None

    def set(self, mode: Mode) -> None:
        """Let passes from now on be under the rules (``on``, ``every``), or dense; gates look at those of ``watch``."""
        ruled = mode in ("on", "every")
        if self.masking is not None:
            self.masking.mode = mode
        if self.attached is not None and self.at_work != ruled:
            (self.attached.resume if ruled else self.attached.pause)()
        self.at_work = ruled

    def share(self, shared: bool) -> None:
        """Treat the rows of a pass as branches of one text, or as texts of their own."""
        if self.masking is not None:
            self.masking.shared = shared


@dataclass
class Passes:
    """Tokens that were read after the prompts, in all branches: under the rules, and densely."""

    sparse: int = 0
    dense: int = 0


@dataclass
class Reader:
    """Reads one text in one or more branches, which share what they had read before they parted.

    The cache is transformers' own, and holds keys and values of every token that was read.
    """

    model: nn.Module
    rules: Rules
    passes: Passes = field(default_factory=Passes)
    cache: Any = None

    def __post_init__(self) -> None:
        if self.cache is None:
            from transformers import DynamicCache

            self.cache = DynamicCache()

    @property
    def length(self) -> int:
        """Tokens that the cache holds."""
        return int(self.cache.get_seq_length())

    def start(self, prompt: Tensor, mode: Mode) -> Tensor:
        """Read a prompt.

        Args:
            prompt: (t,) int64
            mode: ``on`` for under the rules, else ``watch``

        Returns:
            (vocabulary,) float32 logits of the token that follows.

        Raises:
            RunFailed: the network keeps no keys and values of every token.
        """
        logits = self._read(prompt[None], mode)[0, -1]
        if self.length != len(prompt):
            name = type(self.model).__name__
            raise RunFailed(f"decoding: {name} keeps no keys and values of every token — choose another model")
        return logits

    def read(self, tokens: Sequence[Sequence[int]] | Tensor, dense: bool = False) -> Tensor:
        """Read on in every branch.

        Args:
            tokens: (branches, t)
            dense: without the rules

        Returns:
            (branches, t, vocabulary) float32 logits of the token after each.
        """
        given = torch.as_tensor(tokens, device=self.device)
        if dense or not self.rules:
            self.passes.dense += given.numel()
        else:
            self.passes.sparse += given.numel()
        return self._read(given, "off" if dense else "every")

    def forget(self, count: int) -> None:
        """Take back the last ``count`` tokens of every branch."""
        if count:
            self.cache.crop(-count)

    def branch(self, rows: Sequence[int]) -> None:
        """Go on in these branches, in this order; one may be named twice."""
        self.cache.batch_select_indices(torch.tensor(list(rows), device=self.device))

    def twin(self) -> Reader:
        """A reader of the same text with a cache of its own; its passes are counted with this one's."""
        return Reader(self.model, self.rules, self.passes, copy.deepcopy(self.cache))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _read(self, tokens: Tensor, mode: Mode) -> Tensor:
        self.rules.set(mode)
        return self.model(input_ids=tokens, past_key_values=self.cache, use_cache=True).logits.float()
