"""Neurons by context: so many of every token by their gate, or so many for a whole text by its prompt (GRIFFIN)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.inference.activation.neurons import gated
from sparselab.inference.activation.rule import ACTIVATIONS, Rule, RuleOptions

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.network import Network
    from sparselab.inference.parts import Activations


class ContextualRule(Rule):
    """A rule on the neurons of gated feed-forward layers that is fitted to nothing: the text at hand decides."""

    def misfits(self, model_spec: ModelSpec) -> list[Issue]:
        if gated(model_spec):
            return []
        fix = "choose model=llama_tiny or another model whose gate multiplies"
        return [Issue(f"activation={self.name}", "has gates to rank only where feed-forward layers are gated", fix)]


@ACTIVATIONS.register("cats_topk")
class CATSTopK(ContextualRule):
    """CATS by rank: zeroes the int(n s) smallest |g| of every token (Zhou et al. 2024, arXiv 2409.03856, FSparse).

    Row i of W_up and column i of W_down are then not needed; the gate itself is computed whole.
    """

    def prepare(self, network: Network) -> Activations:
        from sparselab.inference.activation.frozen.contextual import by_gate

        return by_gate(network)


@ACTIVATIONS.register("griffin")
class GRIFFIN(ContextualRule):
    """Cuts the same neurons for a whole text, chosen once on its prompt (Dong et al. 2024, arXiv 2404.01365; CSparse).

    The int(n (1 - s)) neurons stay whose share of their token's product is the largest over the prompt's tokens:
    Z = g ⊙ u by rows of length 1, then the norm of every column. Rows of W_gate and W_up and columns of W_down go. After
    a prompt of fewer than two tokens nothing does.
    """

    class Options(RuleOptions):
        dense_prefix: float = Field(
            gt=0, lt=1, description="in (0, 1): share of a window's tokens, the first ones, that is its prompt"
        )

    options: Options

    def prepare(self, network: Network) -> Activations:
        from sparselab.inference.activation.frozen.contextual import by_prompt

        return by_prompt(network)
