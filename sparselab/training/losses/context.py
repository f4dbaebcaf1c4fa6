"""The part of a training run that a loss may read [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.feature_recorder import States
    from sparselab.training.optim.optim import Optim


class StepContext(Protocol):
    """The update under way, as an extra loss sees it; every task is one.

    network:     the model that trains. family, data: what it was built from.
    device:      where the network lies.
    steps:       optimiser updates of the whole run. global_step: those done so far.
    optim:       the optimiser's recipe. bytes_per_token: of a text, per split.
    states:      outputs of the family's blocks for this batch, after :meth:`watch_states`; otherwise None.
    teachers:    frozen networks that several losses share, by the file of their weights.
    """

    network: nn.Module
    family: Family
    data: DataSpec
    optim: Optim
    bytes_per_token: dict[str, float]
    steps: int
    states: States | None
    teachers: dict[str, Any]

    @property
    def device(self) -> torch.device: ...

    @property
    def global_step(self) -> int: ...

    def watch_states(self) -> None:
        """Record the outputs of the family's blocks from now on."""

    def counted(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        """Mask of the predictions that the loss counts, bool of the targets' shape; None: all."""

    def present(self, batch: tuple[Tensor, ...]) -> Tensor | None:
        """Mask of the input positions that are not padding, bool; None: all."""
