"""Neurons of gated feed-forward layers by their gate, one threshold a layer or one a channel: CATS and CHESS."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue, spell
from sparselab.inference.activation.rule import ACTIVATIONS, Rule, RuleOptions

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.network import Network
    from sparselab.inference.parts import Activations


@dataclass(frozen=True)
class Channels:
    """The size of a channel, which its gate is multiplied by: (mean of |u|^power over calibration tokens)^(1 / power).

    down_norm: times the norm of the column of the down-projection that reads it. fresh: the threshold is read on other
    windows than the mean.
    """

    power: int
    down_norm: bool
    fresh: bool


class NeuronRuleOptions(RuleOptions):
    """Options of a rule on the neurons of gated feed-forward layers."""

    defaults_from: ClassVar[str] = "activation/_neurons"

    dense_prefix: float = Field(
        ge=0, lt=1, description="in [0, 1): share of a forward's tokens, the first ones, left dense"
    )
    inputs: list[str] = Field(description="globs over layer names: linear layers whose own input is made sparse, too")
    group: int = Field(
        ge=1, description="calibration windows that give one threshold, at least 1; thresholds are averaged"
    )


class NeuronRule(Rule):
    """Zeroes g_i = act(W_gate x)_i where |g_i| is not above a threshold.

    Row i of W_up and column i of W_down are then not needed: the feed-forward layer is W_down (g ⊙ W_up x). Thresholds
    are quantiles over tokens and channels, one for each group of calibration windows, averaged over groups.
    """

    Options: ClassVar[type[NeuronRuleOptions]] = NeuronRuleOptions

    options: NeuronRuleOptions

    @property
    def channels(self) -> Channels | None:
        """How thresholds differ from channel to channel; None: a layer has one for all."""
        return None

    def prepare(self, network: Network) -> Activations:
        from sparselab.inference.activation.frozen.thresholds import prepare

        return prepare(self, network)

    def misfits(self, model_spec: ModelSpec) -> list[Issue]:
        found = []
        if not gated(model_spec):
            fix = "choose model=llama_tiny or another model whose gate multiplies"
            found.append(
                Issue(f"activation={self.name}", "has gates to compare only where feed-forward layers are gated", fix)
            )
        names = [layer.name for layer in model_spec.layers if not layer.roles & {"head", "embedding"}]
        for i, glob in enumerate(self.options.inputs):
            if not any(fnmatchcase(name, glob) for name in names):
                where = f"activation.inputs[{i}]"
                found.append(Issue(where, f"{spell(glob)} matches no layer", "name layers such as *.q_proj"))
        return found

    def unfit(self, windows: int) -> list[Issue]:
        group = self.options.group
        if windows % group == 0:
            return []
        fix = f"write engine.windows={max(windows // group, 1) * group} or activation.group=1"
        return [Issue(f"engine.windows={windows}", f"is no multiple of activation.group={group}", fix)]


def gated(model_spec: ModelSpec) -> bool:
    """False if the shapes of all known feed-forward layers show that none is gated."""
    parents: dict[str, list[tuple[int, ...]]] = {}
    for layer in model_spec.layers:
        if "ff" in layer.roles and layer.kind in ("linear", "conv1d"):
            shape = layer.shape if layer.kind == "linear" else layer.shape[::-1]
            parents.setdefault(layer.name.rpartition(".")[0], []).append(shape)

    def shows(shapes: list[tuple[int, ...]]) -> bool:
        return any(
            shapes.count((inner, outer)) >= 2 + (inner == outer) or (2 * inner, outer) in shapes
            for outer, inner in shapes
        )

    return not parents or any(map(shows, parents.values()))


@ACTIVATIONS.register("cats")
class CATS(NeuronRule):
    """One threshold a layer, the quantile of |g| (Lee et al. 2024, arXiv 2404.08763)."""


@ACTIVATIONS.register("chess")
class CHESS(NeuronRule):
    """A threshold of each channel, t_i = T / U_i (He et al. 2024, arXiv 2409.01366).

    U_i is the size of the channel's up-projection over calibration tokens, T the quantile of |g_i| U_i. ``inputs`` adds
    what the paper's second variant does to q_proj and o_proj, with one threshold a layer.
    """

    class Options(NeuronRuleOptions):
        stat: Literal["rms", "absmean"] = Field(
            description="rms (first release) or absmean (second): the size of a channel"
        )
        down_norm: bool = Field(
            description="true: times the norm of the column of the down-projection (in neither release)"
        )
        second_pass: Literal["fresh", "same"] = Field(description="fresh or same: windows of T, beside those of U")

    options: Options

    @property
    def channels(self) -> Channels:
        power = {"rms": 2, "absmean": 1}[self.options.stat]
        return Channels(power, self.options.down_norm, self.options.second_pass == "fresh")
