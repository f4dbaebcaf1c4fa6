"""A rule of activation sparsity: which entries of its activations a frozen network computes with [no torch]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.network import Network
    from sparselab.inference.activation.frozen.sites import Place, Site
    from sparselab.inference.parts import Activations


class RuleOptions(Options):
    """How a rule is put to work, whatever it scores and wherever."""

    dense_prefix: float = Field(
        ge=0, lt=1, description="in [0, 1): share of a forward's tokens, the first ones, left dense"
    )


class Rule(ABC):
    """Override what differs.

    ``version``: raise it when the rule changes; it is part of a cell's id.
    """

    Options: ClassVar[type[RuleOptions]] = RuleOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    options: RuleOptions

    def __init__(self, options: RuleOptions):
        self.options = options

    @abstractmethod
    def prepare(self, network: Network) -> Activations:
        """Find the places of the network that it makes sparse, and a gate for each."""

    def factor(self, place: Place) -> Tensor | None:
        """Return what an entry's magnitude is multiplied by to give its score. Never applied to x.

        Args:
            place: where in the network

        Returns:
            (entries,) float, at least 0; None for 1.
        """
        return None

    def misfits(self, model_spec: ModelSpec) -> list[Issue]:
        """Why it cannot work on such a network, as far as the layers tell."""
        return []

    @property
    def passes(self) -> int:
        """How often preparing reads the calibration windows, about."""
        return 1

    def asks(self, target: float | None) -> str:
        """The goal, in a record's words. target: the sparsity asked for."""
        return f"{target:g}" if target else "dense"

    def aimless(self, target: float | None) -> list[Issue]:
        """Why its goal is none, or not one. target: the sparsity asked for."""
        return []

    def unfit(self, windows: int) -> list[Issue]:
        """Why it cannot be calibrated on so many windows."""
        return []

    def idle(self, block: int) -> list[Issue]:
        """Why it would have nothing to do in windows of ``block`` tokens."""
        prefix = self.options.dense_prefix
        if dense_tokens(block, prefix) < block:
            return []
        where, fix = f"activation.dense_prefix={prefix:g}", "write a smaller one, or a larger dataset.block"
        return [Issue(where, f"leaves all {block} tokens of a window dense", fix)]

    def weighs_windows(self, several: bool) -> bool:
        """True if calibration weighs windows against each other. several: they are read in more than one batch."""
        return False


def dense_tokens(tokens: int, prefix: float) -> int:
    """How many of the first of ``tokens`` stay dense. A single token never does."""
    return 0 if tokens == 1 else tokens - int((1 - prefix) * tokens)


class InputRuleOptions(RuleOptions):
    """Options of a rule on what linear layers read."""

    defaults_from: ClassVar[str] = "activation/_inputs"

    pivots: list[str] = Field(
        description="globs over layer names: the layers whose columns a rotation makes orthogonal, one per input",
    )
    transform: bool = Field(description="true: rotate each pivot's input so that its columns are orthogonal")
    gate: Literal["topk", "threshold"] = Field(description="topk or threshold")
    allocation: Literal["uniform", "greedy"] = Field(description="uniform or greedy")
    greedy_step: float = Field(
        gt=0, le=1, description="in (0, 1]: sparsity of a block's first layer that one step adds"
    )
    greedy_last: float = Field(
        gt=0, le=1, description="in (0, 1]: share of the positions, the last ones, whose error counts"
    )


class InputRule(Rule):
    """A rule on the input of every linear layer. The default keeps the entries of largest magnitude."""

    Options: ClassVar[type[InputRuleOptions]] = InputRuleOptions

    options: InputRuleOptions

    def prepare(self, network: Network) -> Activations:
        from sparselab.inference.activation.frozen.inputs import prepare

        return prepare(self, network)

    def factor(self, place: Site) -> Tensor | None:  # type: ignore[override]  # its places are sites
        return None

    def weighs_windows(self, several: bool) -> bool:
        """A threshold that windows share, or a search over several batches."""
        return self.options.gate == "threshold" or (self.options.allocation == "greedy" and several)


ACTIVATIONS: Registry[Rule] = Registry("activation", "sparselab.inference.activation")
