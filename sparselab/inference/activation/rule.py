"""A rule of activation sparsity: which entries of a linear layer's input a frozen network computes with [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inference.activation.frozen.sites import Site


class RuleOptions(Options):
    """How a rule is put to work, whatever it scores by."""

    pivots: list[str] = Field(
        default=["*.k_proj", "*.gate_proj", "*.qkv_proj", "*.gate_up_proj"],
        description="globs over layer names: the layers whose columns a rotation makes orthogonal, one per input",
    )
    transform: bool = Field(
        default=False, description="true: rotate each pivot's input so that its columns are orthogonal"
    )
    gate: Literal["topk", "threshold"] = Field(default="topk", description="topk or threshold")
    allocation: Literal["uniform", "greedy"] = Field(default="uniform", description="uniform or greedy")
    greedy_step: float = Field(
        default=0.025, gt=0, le=1, description="in (0, 1]: sparsity of a block's first layer that one step adds"
    )
    greedy_last: float = Field(
        default=0.25, gt=0, le=1, description="in (0, 1]: share of the positions, the last ones, whose error counts"
    )
    dense_prefix: float = Field(
        default=0.01, ge=0, lt=1, description="in [0, 1): share of a forward's tokens, the first ones, left dense"
    )


class Rule:
    """Override what differs. The default keeps the entries of largest magnitude.

    ``version``: raise it when the rule changes; it is part of a cell's id.
    """

    Options: ClassVar[type[RuleOptions]] = RuleOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, options: RuleOptions):
        self.options = options

    def factor(self, site: Site) -> Tensor | None:
        """(inputs,) what an entry's magnitude is multiplied by to give its score; None for 1. Never applied to x."""
        return None


ACTIVATIONS: Registry[Rule] = Registry("activation", "sparselab.inference.activation")
