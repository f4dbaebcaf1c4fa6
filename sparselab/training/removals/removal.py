"""A removal: epochs that grow shorter, because training examples leave for good [no torch at import]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.removals.torch_side.tally import Tally


class RemovalOptions(Options):
    """Options of every removal."""

    defaults_from: ClassVar[str] = "removal/_base"

    share: float = Field(gt=0, lt=1, description="share of the examples that is removed in all, in (0, 1)")
    every: int = Field(ge=1, description="epochs between two removals, at least 1")
    until: int = Field(ge=1, description="the epoch before which the last removal is, at least 1")


class Removal(ABC):
    """Override :meth:`scores`. Before epochs every, 2 every ... until equally many examples leave, those of lowest score.

    Counted from an epoch 0 that has them all; of a scenario each task by itself (neu-spiral/SparCL
    ``main_sparse_train_w_data_gradient_efficient.py``). How many leave is known before anything runs; which, the run finds out.

    ``version``: raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[RemovalOptions]] = RemovalOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, options: Any):
        self.options = options

    @abstractmethod
    def scores(self, tally: Tally) -> Tensor:
        """Return how much speaks against the removal of each example; of equal ones chance decides.

        Args:
            tally: what was seen of the examples since the last removal

        Returns:
            (n,) int64, at least 0.
        """

    # -- how many ----------------------------------------------------------------------------------------------------

    @property
    def times(self) -> int:
        """How often examples are removed."""
        return self.options.until // self.options.every

    def before(self, epoch: int) -> bool:
        """True if examples are removed before ``epoch``."""
        return 0 < epoch <= self.options.until and epoch % self.options.every == 0

    def each(self, examples: int) -> int:
        """How many leave at a time."""
        return int(Fraction(repr(self.options.share)) * examples / max(self.times, 1))

    def left(self, examples: int, epoch: int) -> int:
        """How many of ``examples`` an epoch has."""
        return examples - self.each(examples) * min(epoch // self.options.every, self.times)

    def share_seen(self, examples: int, epochs: int) -> float:
        """Visits of ``epochs`` epochs over those without a removal."""
        return sum(self.left(examples, epoch) for epoch in range(epochs)) / (examples * epochs)

    # -- checks ------------------------------------------------------------------------------------------------------

    def issues(self, name: str, examples: int, batch: int, epochs: int) -> list[Issue]:
        """Return the issues with ``examples`` training examples of ``name``, in batches, for so many (begun) epochs."""
        o = self.options
        if o.until < o.every:
            fix = f"write at least {o.every}, or removal.every={o.until}"
            return [Issue(f"removal.until={o.until}", f"nothing is removed before epoch {o.every}", fix)]
        if not self.each(examples):
            fix = f"write at least {-(-1000 * self.times // examples) / 1000:g}, or leave the removal out"
            return [Issue(f"removal.share={o.share:g}", f"is less than an example of {name} at a time", fix)]
        if (left := self.left(examples, o.until)) < batch:
            problem = f"leaves {left:,} of {examples:,} examples of {name}, and a batch has {batch:,}"
            least = 1 - batch / examples
            fix = f"write at most {int(least * 1000) / 1000:g}" if least >= 0.001 else "leave the removal out"
            return [Issue(f"removal.share={o.share:g}", problem, fix)]
        if epochs <= o.until:
            problem = f"there are {epochs} epochs of {name}, and the last removal is before one that never comes"
            fix = f"write at most {epochs - 1}" if epochs > 1 else "train longer"
            return [Issue(f"removal.until={o.until}", problem, fix)]
        return []


def epoch_lengths(examples: int, batch: int, removal: Removal | None) -> Iterator[int]:
    """Whole batches of one epoch after another, without end."""
    return ((removal.left(examples, epoch) if removal else examples) // batch for epoch in count())


REMOVALS: Registry[Removal] = Registry("removal", "sparselab.training.removals")
