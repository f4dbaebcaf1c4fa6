"""Prompts: beginnings of texts that a language model is to write on from [torch]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """A beginning. tokens: (t,) int64. answer: what a right text gives as its answer; None where there is no such thing."""

    tokens: Tensor
    answer: str | None = None
