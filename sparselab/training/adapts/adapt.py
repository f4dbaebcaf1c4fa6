"""An adapt: a given network is adapted to other data, and only some parameters train [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.errors import Issue
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting


class Adapt:
    """Override what differs. By default everything trains and nothing is put around the network.

    ``freezes``:    parameters that do not train (:meth:`trains`), and all buffers, stay as they are to the bit: the network
                    evaluates also while it trains, and gradients, the optimiser and checkpoints have nothing of them.
    ``fresh_head``: the head of ``model.weights`` is not read; another one, for the classes of the data, starts at random.
    ``puts``:       names of the modules that :meth:`attach` puts around the network; their tensors are a file of their own.
    ``version``:    raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    freezes: ClassVar[bool] = True
    puts: ClassVar[tuple[str, ...]] = ()
    fresh_head: ClassVar[bool] = False

    def __init__(self, options: Any):
        self.options = options

    # -- before anything runs ----------------------------------------------------------------------------------------

    def issues(self, data: DataSpec, dataset: Dataset) -> list[Issue]:
        """Why it does not fit ``data``, the data as the task sees them."""
        return []

    def network_sees(self, data: DataSpec) -> DataSpec:
        """Return the data that the given network is made for: inputs as they reach it, targets as it tells them apart."""
        return data

    def passes(self, updates: int, batch: int, train: int) -> int | None:
        """Return the training of ``updates`` updates in forward passes of one example, for the account of FLOPs.

        A gradient of the inputs counts as one. None: as without an adapt. train: examples of an epoch.
        """
        return None

    # -- at work -----------------------------------------------------------------------------------------------------

    def trains(self, name: str, head: Collection[str]) -> bool:
        """True if the parameter of that name trains. head: names of the parameters of the network's head."""
        return True

    def attach(self, network: nn.Module, data: DataSpec, loaded: Any) -> None:
        """Put what is learned around or into a network that has just been made, under names of its own.

        data: as the task sees them. loaded: the splits, of which images have ``mean`` and ``std``.
        """

    def adapter(self, adapting: Adapting) -> Adapter:
        """Return what acts during the run."""
        from sparselab.training.adapts.torch_side.adapter import Adapter

        return Adapter(adapting)


ADAPTS: Registry[Adapt] = Registry("adapt", "sparselab.training.adapts")
