"""A search: the weights of a network's operations move beside its own weights, on data of their own [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.core.errors import Issue
    from sparselab.training.parts import UncheckedParts
    from sparselab.training.searches.torch_side.architect import Architect, Searched


class Search:
    """Override what differs. Before each update of the weights one of the operations' weights, on a validation batch.

    The network's family weighs operations (``searched``, ``choices``); what the search looks at is the validation split of the
    dataset, in an order and under an augmentation of its own.

    passes: forward passes of a batch that it adds to an update, for the account; a pass backward is two.
    version: raise it when the rule changes.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, options: Any):
        self.options = options

    @property
    def passes(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes")

    def issues(self, made: UncheckedParts) -> list[Issue]:
        """Return the issues of its own options with the other parts of the cell."""
        return []

    def architect(self, searched: Searched) -> Architect:
        """Return the search at work in a run."""
        raise NotImplementedError(f"{type(self).__name__} has no architect")


SEARCHES: Registry[Search] = Registry("search", "sparselab.training.searches")
