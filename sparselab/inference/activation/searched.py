"""Neurons of gated feed-forward layers by one number for the whole network, fixed or searched for: CETT, Top-k and FAT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue, spell
from sparselab.inference.activation.neurons import gated
from sparselab.inference.activation.rule import ACTIVATIONS, Rule, RuleOptions

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.network import Network
    from sparselab.inference.activation.frozen.search import Family
    from sparselab.inference.activation.frozen.sites import Place
    from sparselab.inference.parts import Activations


class SearchedRuleOptions(RuleOptions):
    """Options of a rule with one number for the whole network."""

    defaults_from: ClassVar[str] = "activation/_searched"

    dense_prefix: float = Field(
        ge=0, lt=1, description="in [0, 1): share of a forward's tokens, the first ones, left dense"
    )
    rise: float | None = Field(
        gt=0, description="share by which the perplexity rises on validation text, above 0 (0.01: PPL-1%), or null"
    )
    value: float | None = Field(ge=0, description="the rule's number itself, at least 0, or null: it is searched for")
    tolerance: float = Field(
        gt=0, le=0.1, description="in (0, 0.1]: width of the last interval of the search in [0, 1]"
    )


class SearchedRule(Rule):
    """Neurons that count for little go; how little is one number of the network, from 0 (none) to 1.

    The number is found by halving [0, 1] until, on validation text, the network under the rule has the share of zeros that
    ``sparsity`` asks for, or the rise in perplexity that ``rise`` does. Zeros are those of the sparse network itself: later
    layers read what sparse ones put out. A neuron that is zero of itself is not active, whatever the number.
    """

    Options: ClassVar[type[SearchedRuleOptions]] = SearchedRuleOptions
    number: ClassVar[str]
    """Name of the number in records."""

    options: SearchedRuleOptions

    def family(self, network: Network, inputs: list[Tensor]) -> Family:
        """Find the places, and gates for every number.

        Args:
            network: the dense network
            inputs: (n, t) int64 each, the windows of the search
        """
        raise NotImplementedError

    def prepare(self, network: Network) -> Activations:
        from sparselab.inference.activation.frozen.search import prepare

        return prepare(self, network)

    @property
    def halvings(self) -> int:
        """Halvings of [0, 1] until the interval is no wider than the tolerance."""
        count = 0
        while 0.5**count > self.options.tolerance:
            count += 1
        return count

    @property
    def passes(self) -> int:
        return 2 + (0 if self.options.value is not None else self.halvings)

    def asks(self, target: float | None) -> str:
        o = self.options
        if o.value is not None:
            return f"{self.number} {o.value:g}"
        return f"rise {o.rise:g}" if o.rise is not None else super().asks(target)

    def aimless(self, target: float | None) -> list[Issue]:
        o, name = self.options, f"activation={self.name}"
        goals = [f"activation.{key}={spell(v)}" for key, v in (("rise", o.rise), ("value", o.value)) if v is not None]
        if target:
            goals.append(f"sparsity={target:g}")
        if not goals:
            fix = "write sparsity=0.5, activation.rise=0.01 or activation.value=0.1"
            return [Issue(name, "has no goal to search for", fix)]
        if len(goals) > 1:
            return [Issue(goals[0], f"is one goal, and {goals[1]} another", "leave one of the two out")]
        return []

    def misfits(self, model_spec: ModelSpec) -> list[Issue]:
        if gated(model_spec):
            return []
        fix = "choose model=llama_tiny or another model whose gate multiplies"
        return [
            Issue(f"activation={self.name}", "has neurons to compare only where feed-forward layers are gated", fix)
        ]


@ACTIVATIONS.register("cett")
class CETT(SearchedRule):
    """Neurons whose output is small beside the layer's: CETT of Luo et al. (2024), arXiv 2411.02335.

    The output of neuron i has the norm |h_i| ||W_down[:, i]||, h = g ⊙ u. Each layer has a threshold eps on it, the largest
    with which what is dropped has, next to the layer's output, a relative size of at most CETT, a mean over tokens; CETT is
    the same for all layers. Thresholds come from the dense network, all layers at once.
    """

    class Options(SearchedRuleOptions):
        thresholds: int = Field(ge=2, description="candidates for a layer's threshold, at least 2")
        top: float = Field(gt=0, le=1, description="in (0, 1]: quantile of the norms that the largest candidate is")

    options: Options
    number = "cett"

    def family(self, network: Network, inputs: list[Tensor]) -> Family:
        from sparselab.inference.activation.frozen.cett import family

        return family(self, network, inputs)

    def factor(self, place: Place) -> Tensor | None:
        from sparselab.inference.activation.frozen.cett import column_norms

        return column_norms(place.down.weight.detach())  # type: ignore[attr-defined]  # its places are products of neurons


@ACTIVATIONS.register("gate_topk")
class GateTopk(SearchedRule):
    """The neurons with the largest gates |g_i|, as many in every layer: the baseline Top-k of arXiv 2411.02335.

    Its number is the share that goes, so a ``sparsity`` needs no search.
    """

    class Options(SearchedRuleOptions):
        value: float | None = Field(
            ge=0, le=1, description="the share that goes, in [0, 1], or null: it is what sparsity says, or searched for"
        )
        scope: Literal["token", "tensor"] = Field(
            description="token or tensor (released code): the largest of each token, or of all tokens of a forward pass"
        )

    options: Options
    number = "level"

    def family(self, network: Network, inputs: list[Tensor]) -> Family:
        from sparselab.inference.activation.frozen.search import by_share

        return by_share(self.options.scope, network, inputs)


@ACTIVATIONS.register("fat")
class FAT(SearchedRule):
    """Neurons whose gate |g_i| is not below one threshold of the whole network: the baseline FAT-eps of arXiv 2411.02335.

    With ``value`` 0 it drops what is zero anyway: the straightforward sparsity of a ReLU network.
    """

    number = "eps"

    def family(self, network: Network, inputs: list[Tensor]) -> Family:
        from sparselab.inference.activation.frozen.search import by_size

        return by_size(self, network, inputs)
