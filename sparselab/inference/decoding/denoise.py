"""Masked diffusion: all tokens are hidden at first, and revealed step by step (LLaDA, arXiv 2502.09992)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import off
from sparselab.inference.decoding.decoding import DECODINGS, Decoding, DecodingOptions, right_answers
from sparselab.inputs.data.masking import mask_misfits, mask_of, masked_view

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec
    from sparselab.inference.attention.rule import Rule
    from sparselab.inference.parts import Bench
    from sparselab.inputs.models.family import Family
    from sparselab.running.single_process import Outcome


@DECODINGS.register("denoise")
class Denoise(Decoding):
    """Every step is a pass over prompt and text, and reveals those hidden tokens that the network is surest of.

    As in ML-GSAI/LLaDA ``generate.py``: ``tokens`` masks stand behind the prompt; block by block, each of ``block`` tokens has
    its share of the ``steps``, and of these each reveals as many tokens, the first ones one more where that does not come
    out even. A revealed token stays. Prompts of one length are passed together. The mask itself is never written.
    """

    class Options(DecodingOptions):
        steps: int = Field(ge=1, description="passes over the whole text, at least one a block and at most one a token")
        block: int | None = Field(
            ge=1, description="tokens that are revealed before any behind them; divides tokens; null: all"
        )
        order: Literal["confidence", "random"] = Field(description="confidence or random: which tokens a step reveals")
        mask: int | None = Field(
            ge=0, description="the token that stands for a hidden one; null: one more than the data have"
        )
        shifted: bool = off(False, description="true: the network's output at a place is about the next one")

    options: Options
    on_decoders = "masked tokens are told from both sides, which transformers' networks here can"

    @property
    def block(self) -> int:
        """Tokens of a block."""
        return self.options.block or self.options.tokens

    def misfits(self) -> list[Issue]:
        o = self.options
        if o.tokens % self.block:
            problem, fix = f"does not divide {o.tokens} tokens", "write a divisor of decoding.tokens, or null"
            return [Issue(f"decoding.block={o.block}", problem, fix)]
        blocks = o.tokens // self.block
        if o.steps < blocks or o.steps % blocks:
            problem = f"does not divide among {blocks} blocks, of which each takes a step at least"
            return [Issue(f"decoding.steps={o.steps}", problem, f"write a multiple of {blocks}")]
        if o.steps > o.tokens:
            problem = f"is more than the {o.tokens} tokens of a text, and a step reveals one at least"
            return [Issue(f"decoding.steps={o.steps}", problem, f"write at most {o.tokens}")]
        return []

    def sees(self, data: DataSpec) -> DataSpec:
        return masked_view(data, self.options.mask)

    def mask(self, data: DataSpec) -> int:
        """The token that stands for a hidden one. data: what :meth:`sees` gave."""
        return mask_of(data, self.options.mask)

    def unfit(self, activation: bool, attention: Rule | None, phase: str) -> list[Issue]:
        found = []
        if activation:
            problem = "is fitted on whole texts, and masked diffusion reads hidden ones"
            found.append(Issue("activation", problem, "leave it out, or write decoding=plain"))
        if attention is not None and attention.calibrated and attention.own_limit is None:
            problem = "is fitted on whole texts, and masked diffusion reads hidden ones"
            found.append(
                Issue(f"attention={attention.name}", problem, "write attention.threshold=…, or attention=sparsed")
            )
        if attention is not None and phase != "prefill":
            problem = "takes tokens one after another, and a step reads all at once"
            found.append(Issue(f"engine.phase={phase}", problem, "write engine.phase=prefill"))
        return found

    def unreadable(self, family: Family, data: DataSpec) -> list[Issue]:
        found = mask_misfits(data, self.options.mask, "decoding.mask")
        if getattr(family, "one_way", bool)():
            problem = "attends to what came before only, and masked tokens are told from both sides"
            fix = "give a network of masked diffusion (is_causal: false in its config.json)"
            found.append(Issue(family.where, problem, fix))
        return found

    def reads(self, block: int) -> float:
        return 4.0 * self.options.steps * self.options.prompts * (block + self.options.tokens)

    def outcome(self, bench: Bench) -> Outcome:
        from sparselab.inference.decoding.denoising.outcome import outcome

        return outcome(self, bench)

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        return [
            ("as without rules", f"{100 * metrics['test.agreement']:.2f} % of {metrics['test.n']:,.0f} tokens"),
            ("KL from full attention", f"{metrics['test.kl']:.4g} nats a hidden token"),
            *right_answers(metrics),
            ("attention", f"{100 * metrics['attention.density']:.2f} % of its tiles,"
                          f" {100 * metrics['attention.cost']:.2f} % of its multiply-accumulates"),
        ]  # fmt: skip
