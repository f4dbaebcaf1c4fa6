"""A merge: the networks of several cells become the one that a cell starts from [no torch at import]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sparselab.core.errors import Issue
from sparselab.core.options import Options, off
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec

State = dict[str, "Tensor"]
"""A network's tensors by name, as its ``state_dict`` has them."""


class MergeOptions(Options):
    """Common options of all merges."""

    defaults_from: ClassVar[str] = "merge/_base"

    recalibrate: int = Field(
        ge=0, description="training examples on which batch normalisation measures again, or 0: its averages stay"
    )
    recalibrate_share: float = off(
        0.0, ge=0, le=1, description="the same as a share of the training examples, 0 to 1, or 0"
    )
    momentum: float | None = off(
        None, gt=0, le=1, description="of the averages measured again, in (0, 1]; null: plain means of all batches"
    )
    masks: Literal["one", "any"] = off(
        "one", description="one: parents of other masks than the first are refused; any: sparsity is lost, or made anew"
    )

    @model_validator(mode="after")
    def _one_way(self) -> MergeOptions:
        if self.recalibrate and self.recalibrate_share:
            raise ValueError("recalibrate and recalibrate_share say the same, write one of them")
        if self.momentum is not None and not (self.recalibrate or self.recalibrate_share):
            raise ValueError("momentum is of averages measured again, and nothing is measured")
        return self


class Merge(ABC):
    """Override :meth:`merge`. The parents have one shape and one mask; the plan and the run see to it.

    ``scores``: it asks for validation scores. ``version``: raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[MergeOptions]] = MergeOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    scores: ClassVar[bool] = False

    def __init__(self, options: MergeOptions):
        self.options = options

    def batches(self, examples: int, batch_size: int) -> int:
        """How many batches batch normalisation measures again on. examples: of the training split."""
        o = self.options
        return (
            o.recalibrate // min(o.recalibrate, batch_size)
            if o.recalibrate
            else int(o.recalibrate_share * (examples // batch_size) + 1e-9)
        )

    def issues(self, data: DataSpec) -> list[Issue]:
        """Return the issues that keep it from merging networks for ``data``."""
        if self.scores and data.known and data.val == 0:
            return [
                Issue(f"merge={self.name}", "chooses on validation examples, and there are none", "set dataset.val")
            ]
        return []

    @abstractmethod
    def merge(self, parents: Sequence[State], score: Callable[[State], float]) -> State:
        """Return the tensors of the merged network, under ``torch.no_grad()``.

        parents: in the order in which the cell names them; not to be changed. score: of a network on the validation split,
        higher is better, batch normalisation measured again as the options say.
        """


def average(parents: Sequence[State]) -> State:
    """Mean of each tensor over the parents, in double precision; of whole numbers (counters) the first parent's.

    Args:
        parents: tensors by name, of the same names and shapes

    Returns:
        New tensors, of the first parent's dtypes.
    """
    mean: State = {}
    for name, first in parents[0].items():
        if first.is_floating_point():
            total: Any = sum(parent[name].double() for parent in parents)
            mean[name] = (total / len(parents)).to(first.dtype)
        else:
            mean[name] = first.clone()
    return mean


MERGES: Registry[Merge] = Registry("merge", "sparselab.training.merges")
