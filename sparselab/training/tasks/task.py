"""A task: what a network is trained for. It owns batch, loss and scores, and knows nothing of sparsity [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.data_types import Pair, spoken
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext

Batch = tuple["Tensor", ...]
"""Inputs first, then targets; a loader may add more parts. The first axis of each is the batch."""


class Task:
    """Override what differs. A dataset names the task that it is for; ``task=`` chooses another one.

    ``needs``:    types of the inputs and targets, as the network sees them, that it trains on.
    ``headline``: the score that a table reads; ``better`` says which way.
    ``least_batch``: examples of a process's micro-batch without which the loss is not defined.
    ``version``:  raise it when the rule changes: from 2 on it is part of a cell's id.

    The pair that a dataset has need not be the pair that a network sees: :meth:`sees` and :meth:`batch` change it alike (an
    autoencoder's targets are its inputs).
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs: ClassVar[Pair]
    headline: ClassVar[str] = ""
    better: ClassVar[str] = "higher"
    least_batch: ClassVar[int] = 1

    def __init__(self, options: Any):
        self.options = options

    # -- before anything runs ----------------------------------------------------------------------------------------

    def sees(self, data: DataSpec) -> DataSpec:
        """The data with inputs and targets as the network sees them."""
        return data

    def issues(self, data: DataSpec) -> list[Issue]:
        """Why it does not fit ``data``, which is what :meth:`sees` gave."""
        if data.pair == self.needs:
            return []
        problem = f"is for {spoken(self.needs)}, and dataset {data.name} is {spoken(data.pair)}"
        return [Issue(f"task={self.name}", problem, f"write {' or '.join(fitting(data))}")]

    # -- training ----------------------------------------------------------------------------------------------------

    def batch(self, batch: Batch) -> Batch:
        """Return what a loader gave, as the network sees it. In training torch's generator is seeded for the batch.

        Args:
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            The same kind of tuple, on the same device.
        """
        return batch

    def scored(self, batch: Batch) -> Batch:
        """Return what a loader gave, as the network sees it where a split is scored; nothing is seeded then.

        Args:
            batch: as for :meth:`batch`

        Returns:
            As :meth:`batch`; of a task that draws, the same for the same examples.
        """
        return self.batch(batch)

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """Mean loss of a batch: a scalar.

        Args:
            outputs: what the family's ``logits`` gave: (n, classes), (n, t, vocabulary) or (n, *targets), float
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives
            context: the network, its family, teachers and the number of the update

        Returns:
            () float, the mean over what :meth:`counted` says.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def counted(self, batch: Batch) -> Tensor | None:
        """Return which predictions the loss counts.

        Args:
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            The targets' shape, bool; None: all.
        """
        return None

    def present(self, batch: Batch) -> Tensor | None:
        """Return which positions of the inputs are there and not padding.

        Args:
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            (n, t) bool; None: all.
        """
        return None

    # -- scoring -----------------------------------------------------------------------------------------------------

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        """Metrics of torchmetrics by name, fresh; several ranks see a share of each batch and agree on the values.

        Args:
            data: what :meth:`sees` gave

        Returns:
            Fresh metrics by name; they are made anew for each pass over a split.
        """
        raise NotImplementedError(f"{type(self).__name__} scores nothing")

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        """Update ``metrics`` with a batch.

        Args:
            metrics: what :meth:`metrics` gave
            outputs: as for :meth:`criterion`
            batch: at least one example of this rank
            context: the network, its family, teachers and the number of the update
        """
        raise NotImplementedError(f"{type(self).__name__} scores nothing")

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        """Scores by name, without the split's prefix, of the metrics' values; ``loss`` and ``n`` among them.

        Args:
            values: of the metrics, over all ranks
            split: ``val`` or ``test``
            context: the network, its family, teachers and the number of the update

        Returns:
            Finite numbers by name.
        """
        return dict(values)

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        """(label, text) of what a researcher can quote of a finished run's ``test.…`` metrics."""
        value, n = metrics[f"test.{cls.headline}"], metrics.get("test.n", 0)
        return [(f"test {cls.headline}", f"{value:.4g} (n = {n:,.0f})")]


TASKS: Registry[Task] = Registry("task", "sparselab.training.tasks")


def fitting(data: DataSpec) -> list[str]:
    """Return what to write in place of a task that does not fit ``data``."""
    fit = [name for name in TASKS if TASKS[name].needs == data.pair]
    return [f"task={name}" for name in fit] or ["another dataset"]
