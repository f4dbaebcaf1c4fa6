"""The part of a training run that a loss may read [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.feature_recorder import States
    from sparselab.training.optim.optim import Optim
    from sparselab.training.scenarios.torch_side.course import Course


class StepContext(Protocol):
    """The update under way, as an extra loss sees it; every task is one.

    network:     the model that trains. family, data: what it was built from.
    device:      where the network lies.
    steps:       optimiser updates of the whole run. global_step: those done so far.
    optim:       the optimiser's recipe. bytes_per_token: of a text, per split.
    states:      outputs of the family's blocks for this batch, after :meth:`watch_states`; otherwise None.
    teachers:    frozen networks that several losses share, by the file of their weights.
    drawing:     the update computes with drawn masks; False after a search by draws, None where there is none.
    masked:      the parameters that have masks, each with its dense values.
    course:      of a scenario: which task is under way, and examples of those before; None without one.
    """

    network: nn.Module
    family: Family
    data: DataSpec
    optim: Optim
    bytes_per_token: dict[str, float]
    steps: int
    states: States | None
    teachers: dict[str, Any]
    course: Course | None

    @property
    def device(self) -> torch.device: ...

    @property
    def global_step(self) -> int: ...

    def watch_states(self) -> None:
        """Record the outputs of the family's blocks from now on."""

    @property
    def drawing(self) -> bool | None: ...

    @property
    def masked(self) -> list[tuple[nn.Parameter, Tensor]]: ...

    def criterion(self, logits: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the task's own mean loss of a batch.

        Args:
            logits: (n, *outputs)
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            () float.
        """

    def again(self, inputs: Tensor) -> Tensor:
        """Compute the logits of the batch under way once more.

        Args:
            inputs: (n, *inputs) of the batch under way

        Returns:
            (n, *outputs), with their graph.
        """

    def look_dense(self, inputs: Tensor) -> tuple[Tensor, States | None]:
        """Look at the batch under way with the dense weights; computed once.

        Args:
            inputs: (n, *inputs) of the batch under way

        Returns:
            (logits, hidden states), without gradient.
        """

    def aside(self, dense: bool) -> AbstractContextManager[None]:
        """Inside, passes beside the update's own leave no trace in running statistics; with ``dense`` masks are off."""

    def counted(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        """Return which predictions the loss counts.

        Args:
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            The targets' shape, bool; None: all.
        """

    def present(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        """Return which positions of the inputs are not padding.

        Args:
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives

        Returns:
            (n, t) bool; None: all.
        """
