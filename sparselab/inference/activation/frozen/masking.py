"""Puts gates on places of a frozen network while it runs, and counts what they let through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from sparselab.inference.activation.frozen.gates import Gate, Remembering
from sparselab.inference.activation.frozen.sites import Mask, Place
from sparselab.inference.activation.rule import Rule, dense_tokens

Mode = Literal["on", "every", "watch", "off"]
"""on: gates are at work behind the dense prefix of a pass. every: on all of its tokens. watch: everything stays dense, and
gates that remember see it. off: as if there were none."""


@dataclass
class Count:
    """Entries at a place: all that were read, those under the gate, and those that the gate kept."""

    read: int = 0
    gated: int = 0
    kept: Tensor | int = 0  # stays on its device until somebody asks

    @property
    def gated_sparsity(self) -> float:
        """Share of entries set to zero, over the tokens under the gate."""
        return 1 - int(self.kept) / self.gated if self.gated else 0.0

    @property
    def sparsity(self) -> float:
        """The same share of all entries, dense tokens included."""
        return (self.gated - int(self.kept)) / self.read if self.read else 0.0


class Masking:
    """``with Masking(...):`` every forward pass sees gated tensors. Places without a gate are untouched, bit for bit.

    prefix: share of a pass's tokens, the first ones, that stay dense; the last ``int((1 - prefix) t)`` of t tokens are
    gated, and a single token always is (arXiv 2505.19427, released code).

    mode: what passes from now on do. shared: rows of a pass are branches of one text, and are gated alike, by the mean of
    their scores. Dense passes are not counted.
    """

    mode: Mode = "on"
    shared: bool = False

    def __init__(self, rule: Rule, places: Iterable[Place], gates: Mapping[str, Gate], prefix: float):
        self.gates = dict(gates)
        self.prefix = prefix
        self.places = list(places)
        self.factors = {place.name: rule.factor(place) for place in self.places}
        self.counts = {place.name: Count() for place in self.places}
        self._handles: list[Any] = []

    def __enter__(self) -> Masking:
        for place in self.places:
            self._handles.append(place.attach(self._mask(place)))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _mask(self, place: Place) -> Mask:
        factor, count = self.factors[place.name], self.counts[place.name]

        def mask(x: Tensor) -> Tensor | None:
            gate = self.gates.get(place.name)
            remembering = gate if isinstance(gate, Remembering) else None
            if self.mode in ("watch", "off"):
                if self.mode == "watch" and remembering is not None:
                    remembering.see(x)
                return None
            count.read += x.numel()
            if gate is None:
                count.gated += x.numel()
                count.kept = count.kept + x.numel()
                return None
            first = dense_tokens(x.shape[-2], self.prefix) if self.mode == "on" else 0
            head, tail = x[..., :first, :], x[..., first:, :]
            if self.mode == "on" and remembering is not None:
                remembering.see(head)  # a text begins, perhaps without a head: what the one before had is of no use
            score = scores(tail, factor)
            keep = gate(score.mean(0, keepdim=True)).expand_as(tail) if self.shared else gate(score).expand_as(tail)
            count.gated += tail.numel()
            count.kept = count.kept + keep.sum()
            return torch.cat((head, tail.masked_fill(~keep, 0)), -2)

        return mask


def scores(x: Tensor, factor: Tensor | None) -> Tensor:
    """|x| or |x| times ``factor``: (..., inputs)."""
    return x.abs() if factor is None else x.abs() * factor
