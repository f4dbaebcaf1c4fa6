"""Scores cut into tiles, and attention over the tiles that a rule keeps.

A skipped tile never changes the running maximum, so which tiles are skipped follows from the scores alone, and the
softmax over what is kept is what the online recurrence gives (:mod:`sparselab.inference.attention.tiled.online` is that
recurrence, step by step). Nothing is saved in time here: this is for exact outputs and exact counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparselab.inference.attention.rule import Rule, Tiles


@dataclass
class Tally:
    """Tiles of all calls of a layer and phase: visible ones, and kept ones. Multiply-accumulates of the products."""

    valid: Tensor | int = 0
    kept: Tensor | int = 0
    pairs: int = 0  # query-key pairs that a dense kernel multiplies, causal or not, times the width of a head

    @property
    def sparsity(self) -> float:
        """Share of visible tiles that were skipped."""
        return 1 - int(self.kept) / int(self.valid) if int(self.valid) else 0.0


@dataclass
class Ledger:
    """Tallies by (layer, phase). saves: share of a skipped tile's two products that a rule does without."""

    tallies: dict[tuple[int, str], Tally] = field(default_factory=dict)
    saves: float = 0.5

    def add(self, layer: int, phase: str, valid: Tensor, kept: Tensor, pairs: int) -> None:
        tally = self.tallies.setdefault((layer, phase), Tally())
        tally.valid = tally.valid + valid.sum()
        tally.kept = tally.kept + kept.sum()
        tally.pairs += pairs

    def totals(self) -> tuple[int, int, int]:
        """(visible tiles, kept ones, multiply-accumulates of dense query-key products) of all layers and phases."""
        found = self.tallies.values()
        return sum(int(t.valid) for t in found), sum(int(t.kept) for t in found), sum(t.pairs for t in found)

    def sparsity(self, phase: str | None = None) -> float:
        """Mean over layers and phases, as the paper averages; of one phase where it is named."""
        found = [tally.sparsity for (_, at), tally in self.tallies.items() if phase in (None, at)]
        return sum(found) / len(found) if found else 0.0


def causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """(queries, keys) bool: the queries are the last positions of the keys."""
    at = torch.arange(keys - queries, keys, device=device)
    return torch.arange(keys, device=device) <= at[:, None]


@dataclass(frozen=True)
class More:
    """Additions of some networks to scores and softmax.

    softcap: scores become ``softcap * tanh(score / softcap)`` (Gemma-2). bias: added to the scores after that, broadcastable
    to (n, heads, t, s). sinks: (heads,) a score of each head that stands in the denominators and for no key (GPT-OSS); it
    lies in no tile, and no tile is compared with it.
    """

    softcap: float | None = None
    bias: Tensor | None = None
    sinks: Tensor | None = None

    def part(self, first: int, last: int, keys: int) -> More:
        """Return the part for rows ``first`` to ``last`` and the first ``keys`` keys."""
        if self.bias is None:
            return self
        rows = slice(None) if self.bias.shape[-2] == 1 else slice(first, last)
        return replace(self, bias=self.bias[..., rows, :keys])


def scores_of(q: Tensor, k: Tensor, scale: float, visible: Tensor, more: More = More()) -> Tensor:
    """(n, heads, t, s) float32, minus infinity where not visible. q: (n, heads, t, d), k: (n, kv heads, s, d)."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q.float() @ k.float().transpose(-1, -2) * scale
    if more.softcap is not None:
        scores = more.softcap * torch.tanh(scores / more.softcap)
    if more.bias is not None:
        scores = scores + more.bias.float()
    return scores.masked_fill(~visible, -torch.inf)


def softmax_of(scores: Tensor, more: More) -> Tensor:
    """Return the softmax as the network computes it.

    Args:
        scores: (n, heads, t, s) float
        more: what the network adds to them

    Returns:
        (n, heads, t, s) weights of the keys; zeros for a row without any.
    """
    if more.sinks is None:
        return scores.softmax(-1).nan_to_num(0.0)
    sinks = more.sinks.float()[:, None, None].expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


def cut(scores: Tensor, lengths: Tensor, block_q: int, block_k: int) -> Tiles:
    """Tiles of scores (n, heads, t, s); lengths: (t,)."""
    t, s = scores.shape[-2:]
    rows, keys = -t % block_q, -s % block_k
    padded = pad(scores, (0, keys, 0, rows), value=-torch.inf)
    peak = padded.unflatten(-1, (-1, block_k)).amax(-1)
    return Tiles(peak, pad(lengths, (0, rows), value=1), block_q)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, rule: Rule, phase: str,
    visible: Tensor | None = None, ledger: Ledger | None = None, layer: int = 0, more: More = More(),
) -> Tensor:  # fmt: skip
    """Attention of q (n, heads, t, d) over k, v (n, kv heads, s, d): (n, heads, t, d) in q's dtype.

    phase: ``prefill`` tiles the queries by the rule's ``block_q`` and counts s keys for all of them; ``decode`` treats
    every query as a call of its own over the keys up to it. visible: bool, broadcastable to (n, heads, t, s); None:
    causal, the queries being the last positions. A row that sees no key gives zeros, and vetoes nothing.
    """
    t, s = q.shape[-2], k.shape[-2]
    seen = causal(t, s, q.device) if visible is None else visible
    scores = scores_of(q, k, scale, seen, more)
    decoding = phase == "decode"
    lengths = torch.arange(s - t + 1, s + 1, device=q.device) if decoding else torch.full((t,), s, device=q.device)
    block_q, block_k = 1 if decoding else rule.options.block_q, rule.options.block_k
    tiles = replace(
        cut(scores, lengths, block_q, block_k), scores=scores, block_k=block_k, layer=layer, width=q.shape[-1]
    )
    keep = rule.keep(tiles, phase)
    if ledger is not None:
        ledger.add(layer, phase, tiles.valid, keep, q.shape[0] * q.shape[1] * t * s * q.shape[-1])
    entries = keep.repeat_interleave(block_q, 2)[:, :, :t].repeat_interleave(block_k, 3)[..., :s]
    weights = softmax_of(scores.masked_fill(~entries, -torch.inf), more)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    return (weights @ v.float()).to(q.dtype)
