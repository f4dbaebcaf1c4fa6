"""Replaces the attention of a transformers network through the library's own registry, and puts it back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.inference.attention.rule import PHASES, Rule
from sparselab.inference.attention.tiled.tiles import Ledger, More, Tiles, attend

NAME = "sparselab_tiles"
SAME = 1e-3  # largest change of the logits by a rule that skips nothing, of their size
# What a call may carry that changes nothing of what is computed here, or that its mask says already.
WITHOUT_EFFECT = frozenset(
    ("dropout", "is_causal", "sliding_window", "output_attentions", "use_cache", "position_ids", "cache_position",
     "past_key_values", "position_embeddings", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
)  # fmt: skip


class Attached:
    """``with Attached(model, rule, phase) as ledger:`` every layer attends by the rule; the ledger counts tiles.

    phase: how a pass over several tokens is taken. ``prefill``: a prompt; ``decode``: every token as if it came alone
    after those before it; ``both``: the first half a prompt and the rest alone. One token is always decoding.
    Only what goes through transformers' ``AttentionInterface`` changes; models without it are refused by the library.
    """

    def __init__(self, model: nn.Module, rule: Rule, phase: str = "prefill"):
        self.model, self.rule, self.phase = model, rule, phase
        self.ledger = Ledger(saves=rule.saves)

    def __enter__(self) -> Ledger:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        self._before: Any = self.model.config._attn_implementation  # type: ignore[union-attr]
        AttentionInterface.register(NAME, self._attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)  # bool masks, and none where plain causality says it all
        self.resume()
        return self.ledger

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pause()

    def resume(self) -> None:
        """Let the rule take part in passes from now on."""
        self.model.set_attn_implementation(NAME)  # type: ignore[operator]

    def pause(self) -> None:
        """Let the network attend as it does by itself."""
        self.model.set_attn_implementation(self._before)  # type: ignore[operator]

    def _attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float | None = None, softcap: float | None = None, s_aux: Tensor | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        unknown = sorted(key for key, value in others.items() if _counts(key, value))
        if unknown:
            raise RunFailed(
                f"attention={self.rule.name}: this network's attention also takes {unknown[0]} — choose another model"
            )
        more = More(softcap, sinks=s_aux)
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            least = torch.finfo(attention_mask.dtype).min / 2
            more = More(softcap, attention_mask.clamp(min=least), s_aux)
            attention_mask = attention_mask > least
        causal = others.get("is_causal")
        if causal is None:  # a network that attends in both directions says so in its config, whatever its layers say
            causal = getattr(module, "is_causal", True) and getattr(self.model.config, "is_causal", True) is not False
        if attention_mask is None and not causal:
            attention_mask = torch.ones(1, 1, *query.shape[-2:-1], key.shape[-2], dtype=torch.bool, device=query.device)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        t, s = query.shape[-2], key.shape[-2]
        outputs = []
        for phase, first, last in self._parts(t):
            end = s - t + last  # a part sees what had come by its end
            visible = None if attention_mask is None else _rows(attention_mask, first, last)[..., :end]
            outputs.append(
                attend(
                    query[:, :, first:last], key[:, :, :end], value[:, :, :end], scale, self.rule, phase,
                    visible, self.ledger, getattr(module, "layer_idx", 0) or 0, more.part(first, last, end),
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


class Everything(Rule):
    """A rule that skips no tile."""

    name = "everything"

    def keep(self, tiles: Tiles, phase: str) -> Tensor:
        return tiles.valid


@torch.no_grad()
def check_applies(
    model: nn.Module, logits_of: Callable[[Tensor], Tensor], rule: Rule, phase: str, tokens: Tensor
) -> None:
    """Try whether a rule can take part in a network.

    Args:
        model: the network
        logits_of: (n, t) int64 to (n, t, vocabulary)
        rule: what is to be applied
        phase: ``prefill`` or ``decode``
        tokens: (n, t) int64, on which the network is looked at as it is and under a rule that skips nothing

    Raises:
        RunFailed: the rule would be applied to no layer, or taking part in its form changes the network.
    """
    plain = logits_of(tokens).float()
    try:
        with Attached(model, Everything(rule.options), phase) as ledger:
            whole = logits_of(tokens).float()
    except (ValueError, AttributeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:60]
        raise RunFailed(f"attention={rule.name}: this network takes no other attention ({reason})") from None
    if not ledger.tallies:
        raise RunFailed(
            f"attention={rule.name}: no layer of this network goes through transformers' attention interface, so that the "
            "rule would be applied nowhere — choose another model"
        )
    change = float((whole - plain).norm() / plain.norm())
    if not change < SAME:
        raise RunFailed(
            f"attention={rule.name}: skipping nothing changes this network's logits by {change:.2g} of their size: its "
            "attention is more than scores and a softmax — choose another model"
        )


def _counts(key: str, value: Any) -> bool:
    """True if an argument of a call would change what attention gives."""
    return key not in WITHOUT_EFFECT and value is not None and not isinstance(value, bool | str)


def _rows(mask: Tensor, first: int, last: int) -> Tensor:
    return mask if mask.shape[-2] == 1 else mask[..., first:last, :]
