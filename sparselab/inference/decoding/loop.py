"""A decoding loop: how a frozen network writes on from a prompt, and what that costs [no torch]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.inference.decoding.cached.writing import Writing


class LoopOptions(Options):
    """The texts, whatever loop writes them."""

    defaults_from: ClassVar[str] = "decoding/_base"

    prompts: int = Field(ge=1, description="prompts of the test split that the seed draws, at least 1")
    tokens: int = Field(ge=1, description="tokens that are written for a prompt, at most; at least 1")
    temperature: float = Field(ge=0, description="0 for the likeliest token; above 0 tokens are drawn at it")
    prompt: Literal["dense", "sparse"] = Field(
        description="dense or sparse: a prompt is read without or under the rules"
    )
    stop: bool = Field(description="true: a text ends with a token that the network names as its end")


@dataclass(frozen=True)
class Text:
    """Tokens that were written for a prompt, and the loop's own counts by name."""

    tokens: list[int]
    counts: Mapping[str, float] = field(default_factory=dict)


class Loop(ABC):
    """Override ``write``, and what else differs.

    ``version``: raise it when the loop changes; it is part of a cell's id. ``ahead``: tokens that it may read beyond the
    last one that it writes. ``needs_rules``: it is only for networks under a rule.
    """

    Options: ClassVar[type[LoopOptions]] = LoopOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs_rules: ClassVar[bool] = False

    options: LoopOptions

    def __init__(self, options: LoopOptions):
        self.options = options

    @property
    def ahead(self) -> int:
        return 0

    @abstractmethod
    def write(self, writing: Writing) -> Text:
        """Write on from a prompt, at most ``options.tokens`` tokens; the last may be one that ends the text."""

    def metrics(self, counts: Mapping[str, float], density: float) -> dict[str, float]:
        """Return numbers of its own about all texts, by the name that a table reads.

        Args:
            counts: sums of what :meth:`write` counted
            density: share of the parameters that a token under the rules needs
        """
        return {"effective_density": density}

    def misfits(self) -> list[Issue]:
        """Why its options do not fit each other."""
        return []


DECODINGS: Registry[Loop] = Registry("decoding", "sparselab.inference.decoding")
