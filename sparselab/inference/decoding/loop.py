"""A decoding loop: how a frozen network writes on from a prompt, token after token, and what that costs [no torch]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.inference.decoding.decoding import Decoding, DecodingOptions, right_answers

if TYPE_CHECKING:
    from sparselab.inference.attention.rule import Rule
    from sparselab.inference.decoding.cached.writing import Writing
    from sparselab.inference.parts import Bench
    from sparselab.running.single_process import Outcome


class LoopOptions(DecodingOptions):
    """How prompts are read and where texts end, whatever loop writes them."""

    defaults_from: ClassVar[str] = "decoding/_loop"

    prompt: Literal["dense", "sparse"] = Field(
        description="dense or sparse: a prompt is read without or under the rules"
    )
    stop: bool = Field(description="true: a text ends with a token that the network names as its end")


@dataclass(frozen=True)
class Text:
    """Tokens that were written for a prompt, and the loop's own counts by name."""

    tokens: list[int]
    counts: Mapping[str, float] = field(default_factory=dict)


class Loop(Decoding):
    """Override ``write``, and what else differs: the network reads through a cache of keys and values."""

    Options: ClassVar[type[LoopOptions]] = LoopOptions
    on_decoders = "decoding reads through a cache of keys and values, which transformers' decoders have"

    options: LoopOptions

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

    def unfit(self, activation: bool, attention: Rule | None, phase: str) -> list[Issue]:
        found = []
        if attention is not None and phase == "prefill":
            fix = "write engine.phase=decode"
            found.append(Issue(f"engine.phase={phase}", "keeps attention rules from written tokens", fix))
        return found

    def outcome(self, bench: Bench) -> Outcome:
        from sparselab.inference.decoding.cached.outcome import outcome

        return outcome(self, bench)

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        return [
            ("as without rules", f"{100 * metrics['test.agreement']:.2f} % of {metrics['test.n']:,.0f} tokens"),
            ("perplexity of texts", f"{metrics['test.perplexity']:.4f} (without rules {metrics['test.dense_perplexity']:.4f})"),
            *right_answers(metrics),
            ("weights read", f"{100 * metrics['test.effective_density']:.2f} % of dense, per token"),
        ]  # fmt: skip
