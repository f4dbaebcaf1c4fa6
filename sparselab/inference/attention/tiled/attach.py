"""Gives a transformers network another attention through the library's own registry, and takes it away again."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.inference.attention.rule import PHASES, Rule
from sparselab.inference.attention.tiled.tiles import Ledger, attend

NAME = "sparselab_tiles"


class Attached:
    """``with Attached(model, rule, phase) as ledger:`` every layer attends by the rule; the ledger counts tiles.

    phase: how a pass over several tokens is taken. ``prefill``: a prompt; ``decode``: every token as if it came alone
    after those before it; ``both``: the first half a prompt and the rest alone. One token is always decoding.
    Only what goes through transformers' ``AttentionInterface`` changes; models without it are refused by the library.
    """

    def __init__(self, model: nn.Module, rule: Rule, phase: str = "prefill"):
        self.model, self.rule, self.phase = model, rule, phase
        self.ledger = Ledger()

    def __enter__(self) -> Ledger:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        self._before: Any = self.model.config._attn_implementation  # type: ignore[union-attr]
        AttentionInterface.register(NAME, self._attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)  # bool masks, and none where plain causality says it all
        self.model.set_attn_implementation(NAME)  # type: ignore[operator]
        return self.ledger

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.model.set_attn_implementation(self._before)  # type: ignore[operator]

    def _attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float | None = None, **ignored: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        t, s = query.shape[-2], key.shape[-2]
        outputs = []
        for phase, first, last in self._parts(t):
            end = s - t + last  # a part sees what had come by its end
            visible = None if attention_mask is None else attention_mask[..., first:last, :end].bool()
            outputs.append(
                attend(
                    query[:, :, first:last], key[:, :, :end], value[:, :, :end], scale, self.rule, phase,
                    visible, self.ledger, getattr(module, "layer_idx", 0) or 0,
                )
            )  # fmt: skip
        return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None

    def _parts(self, t: int) -> list[tuple[str, int, int]]:
        """(phase, first row, last row) of the parts of a pass over t tokens."""
        if t == 1:
            return [("decode", 0, 1)]
        if self.phase in PHASES:
            return [(self.phase, 0, t)]
        return [("prefill", 0, t // 2), ("decode", t // 2, t)]
