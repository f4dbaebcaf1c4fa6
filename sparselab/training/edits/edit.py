"""An edit: a change of the network before the first update. With trainer.max_steps=0 it is all that a run does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.errors import Issue

Batches = Iterator[tuple["Tensor", "Tensor"]]


@dataclass(frozen=True)
class Editing:
    """The data that an edit may look at, and the network that it changes in place.

    network: in evaluation mode. logits: (network, inputs) -> logits (n, classes).
    parts:   a pass over a part of the data by name (train, forget, retain), (inputs, labels) without augmentation, the same
             on every rank; sizes: examples in each.
    head:    names of the parameters of the classifier.
    masks:   by name of a parameter that is pruned, bool of its shape, True where kept. A pruned weight takes no part in the
             network, so gradients of it are zero.
    """

    network: nn.Module
    logits: Callable[[nn.Module, Tensor], Tensor]
    parts: Mapping[str, Callable[[], Batches]]
    sizes: Mapping[str, int]
    head: frozenset[str]
    seed: int
    masks: Mapping[str, Tensor] = field(default_factory=dict)


class Edit(ABC):
    """Override :meth:`apply`. Pruned weights that it changes are zero again afterwards: the mask stands.

    ``version``: raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, options: Any):
        self.options = options

    def issues(self, data: DataSpec) -> list[Issue]:
        """Return the issues that keep it from being applied to ``data``."""
        return []

    @abstractmethod
    def apply(self, editing: Editing) -> None:
        """Change ``editing.network``, under ``torch.no_grad()``."""


EDITS: Registry[Edit] = Registry("edit", "sparselab.training.edits")
