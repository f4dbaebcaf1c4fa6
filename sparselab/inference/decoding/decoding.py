"""A way of decoding: how a frozen network writes texts, and what comes of it [no torch]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.core.errors import Issue
    from sparselab.inference.attention.rule import Rule
    from sparselab.inference.parts import Bench
    from sparselab.inputs.models.family import Family
    from sparselab.running.single_process import Outcome


class DecodingOptions(Options):
    """The texts, however they are written."""

    defaults_from: ClassVar[str] = "decoding/_base"

    prompts: int = Field(ge=1, description="prompts of the test split that the seed draws, at least 1")
    tokens: int = Field(ge=1, description="tokens that are written for a prompt, at most; at least 1")
    temperature: float = Field(ge=0, description="0 for the likeliest token; above 0 tokens are drawn at it")


class Decoding(ABC):
    """Override ``outcome``, and what else differs.

    ``version``: raise it when it changes; it is part of a cell's id. ``ahead``: tokens that it may read beyond the last one
    that it writes. ``needs_rules``: it is only for networks under a rule. ``on_decoders``: why it needs a transformers network.
    """

    Options: ClassVar[type[DecodingOptions]] = DecodingOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs_rules: ClassVar[bool] = False
    on_decoders: ClassVar[str] = ""

    options: DecodingOptions

    def __init__(self, options: DecodingOptions):
        self.options = options

    @property
    def ahead(self) -> int:
        return 0

    def sees(self, data: DataSpec) -> DataSpec:
        """The data with inputs and targets as the network sees them."""
        return data

    def misfits(self) -> list[Issue]:
        """Why its options do not fit each other."""
        return []

    def unfit(self, activation: bool, attention: Rule | None, phase: str) -> list[Issue]:
        """Why it cannot work under the cell's rules.

        Args:
            activation: whether there is a rule on activations
            attention: the rule on attention
            phase: how attention takes a pass over several tokens

        Returns:
            Faults.
        """
        return []

    def unreadable(self, family: Family, data: DataSpec) -> list[Issue]:
        """Why a network cannot write so. data: what :meth:`sees` gave."""
        return []

    def reads(self, block: int) -> float:
        """Tokens that a cell reads, about. block: of a prompt."""
        return 3.0 * self.options.prompts * (self.options.tokens + block)

    @abstractmethod
    def outcome(self, bench: Bench) -> Outcome:
        """Write the texts, and say what came of it.

        Args:
            bench: the network, its rules and the data

        Returns:
            Numbers about all texts.
        """

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        """(label, text) of what a researcher can quote of a finished cell."""
        raise NotImplementedError(f"{cls.__name__} sums nothing up")


def right_answers(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """The line (label, text) of a summary on problems with answers; none where there are no answers."""
    if (right := metrics.get("test.exact_match")) is None:
        return []
    return [("right answers", f"{100 * right:.2f} % (without rules {100 * metrics['test.dense_exact_match']:.2f} %)")]


DECODINGS: Registry[Decoding] = Registry("decoding", "sparselab.inference.decoding")
