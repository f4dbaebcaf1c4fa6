"""A feature of an auto-encoder, and the contexts in which it fires most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """A place of the text where a feature fires: the text before, the token itself, the text after, and the code there."""

    before: str
    token: str
    after: str
    code: float


@dataclass(frozen=True)
class Feature:
    """density: share of the test split's tokens for which it fires. contexts: those where it fires most, falling."""

    number: int
    density: float
    contexts: tuple[Context, ...]
