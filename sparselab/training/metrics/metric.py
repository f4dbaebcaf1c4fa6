"""A metric: something measured on the test split of the finished network, beside the task's own scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.data_types import Classes, Images, Pair, spoken
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import Layer
    from sparselab.inputs.data.dataset import Dataset


@dataclass(frozen=True)
class Subject:
    """The network and data that a metric may look at.

    network: in evaluation mode, with the weights that are exported. logits: inputs -> float32 logits (n, classes).
    batches: a fresh pass over this rank's share of the test split, (inputs, labels) on the network's device.
    data:    what the dataset is. mean, std: per channel, of pixel / 255: an input is (pixel / 255 - mean) / std.
    loaded:  the loaded data, for metrics of one kind of data.
    parts:   the same as ``batches`` for other parts of the data by name, such as ``forget``, without augmentation.
    weights: the weights that the cell's targets name, a dense cell's too. masks: of a sparse cell, bool, by name of the tensor.
    parents: the networks that this one was merged of, in evaluation mode: one module that gets the weights of the next.
    forward: (a network of this kind, inputs) -> float32 logits.
    """

    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    data: DataSpec
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    parts: Mapping[str, Callable[[], Iterator[tuple[Tensor, Tensor]]]] = field(default_factory=dict)
    loaded: Any = None
    weights: Mapping[Layer, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    parents: Callable[[], Iterator[nn.Module]] = lambda: iter(())
    forward: Callable[[nn.Module, Tensor], Tensor] = lambda network, inputs: network(inputs)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Inputs as pixels from 0 to 1.

        Args:
            inputs: (n, c, h, w) float, as the network reads them

        Returns:
            (n, c, h, w) float in [0, 1], the mean and deviation of the dataset taken back.
        """
        mean, std = self._statistics(inputs)
        return inputs * std + mean

    def inputs(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 to 1 as the network reads them.

        Args:
            pixels: (n, c, h, w) float in [0, 1]

        Returns:
            (n, c, h, w) float.
        """
        mean, std = self._statistics(pixels)
        return (pixels - mean) / std

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        mean, std = (torch.tensor(numbers, device=like.device).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return mean, std


class Metric:
    """Runs once, after training. Several processes each see a share and agree on the result.

    ``version``: raise it when the rule changes: it is part of the id of a cell that asks for the metric. ``needs``: types of
    the inputs and targets that it is for, image classifiers unless it says otherwise; None: any. ``needs_parents``: the cell
    merges several networks. ``needs_spikes``: its network has spiking neurons. ``needs_given``: what it reads of the network,
    one of the family's ``gives``.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs: ClassVar[Pair | None] = (Images, Classes)
    needs_parents: ClassVar[bool] = False
    needs_spikes: ClassVar[bool] = False
    needs_given: ClassVar[str | None] = None

    def __init__(self, options: Any, data_dir: str | None = None):
        self.options = options  # an instance of the class's own Options
        self.data_dir = data_dir

    def issues(self, data: DataSpec) -> list[Issue]:
        """Return the issues that keep it from being measured on ``data``."""
        if self.needs is None or data.pair == self.needs:
            return []
        problem = f"is for {spoken(self.needs)}, and dataset {data.name} is {spoken(data.pair)}"
        return [Issue(f"metric={self.name}", problem, "leave it out")]

    def files(self) -> dict[str, str]:
        """Files whose content the result depends on, by option name; the plan hashes them."""
        return {}

    def against(self, layers: list[Layer], dependencies: Mapping[str, str]) -> list[Issue]:
        """Return the issues with the sparse layers of the cell (none where it is dense).

        A file among ``dependencies`` may not be there yet: another cell makes it.
        """
        return []

    def datasets(self) -> dict[str, Dataset]:
        """Datasets that it reads, by name; the plan checks them, and their content is part of the id."""
        return {}

    def measure(self, subject: Subject) -> dict[str, float]:
        """Measure the finished network.

        Args:
            subject: the finished network with the test split

        Returns:
            Finite numbers by name, without ``test.``; the same on every rank.
        """
        raise NotImplementedError(f"{type(self).__name__} measures nothing")

    def pictures(self, subject: Subject) -> dict[str, bytes]:
        """PNG files by name that lie beside the record, where a table or a report may show them."""
        return {}


METRICS: Registry[Metric] = Registry("metric", "sparselab.training.metrics")
