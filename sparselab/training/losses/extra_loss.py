"""An extra loss, which composes with any method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.data_types import Pair
    from sparselab.core.errors import Issue
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inputs.models.family import Family
    from sparselab.training.losses.context import StepContext


class ExtraLoss:
    """``weight * loss(...)`` is added to the task's loss, which itself is multiplied by ``share_of_task_loss()``.

    At weight 0 it is not computed. Capabilities, checked before anything runs:

    ``needs_states``         reads ``context.states``, the outputs of the family's blocks.
    ``needs_spikes``         those blocks have to be layers of spiking neurons.
    ``needs_pair``           types of inputs and targets that it is for; None: any.
    ``needs_classes``        compares probabilities, of classes or of next tokens.
    ``needs_given``          what of the network it reads (the family's ``gives``); None: nothing.
    ``needs_trained_start``  makes no sense where training starts from random weights.
    ``needs_dense_weights``  compares the network with itself without masks (``context.look_dense``).
    ``needs_drawn_masks``    differentiates through a draw of masks (``context.masked``), twice.
    ``taught_by``            the teacher whose forward pass it needs: a weights file, or another name; None for none.
    ``own_passes``           what it computes beside that, in forward passes of the dense network (a pass backward is two).
    ``replays``              draws of earlier examples in an update, each a pass of a batch through the network as it is.
    ``needs_scenario``       recalls examples of earlier tasks (:meth:`in_scenario`).
    ``of_search``            of a method that draws masks it is computed in the updates that do, and no longer.
    """

    class Options(AnyOptions):
        defaults_from: ClassVar[str] = "loss/_base"

        weight: float = Field(ge=0, description="factor of the extra loss in the sum, at least 0")

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs_states: ClassVar[bool] = False
    needs_spikes: ClassVar[bool] = False
    needs_pair: ClassVar[Pair | None] = None
    needs_classes: ClassVar[bool] = False
    needs_given: ClassVar[str | None] = None
    needs_trained_start: bool = False
    needs_dense_weights: ClassVar[bool] = False
    needs_drawn_masks: ClassVar[bool] = False
    taught_by: str | None = None
    own_passes: ClassVar[int] = 0
    replays: ClassVar[int] = 0
    of_search: ClassVar[bool] = False
    needs_scenario: ClassVar[bool] = False

    def __init__(self, options: Any):
        self.options = options

    def prepare(self, context: StepContext) -> None:
        """Once, before training: build what the loss needs on the task's device (a teacher, say)."""

    def files(self) -> dict[str, str]:
        """Files whose content the result depends on, by option name; the plan checks and hashes them."""
        return {}

    def mask_files(self) -> dict[str, str]:
        """Files of masks that the result depends on, likewise; :meth:`against` looks into them."""
        return {}

    def against(self, model_spec: ModelSpec, dependencies: Mapping[str, str]) -> list[Issue]:
        """Return the issues with the layers of the network.

        A file among ``dependencies`` may not be there yet: another cell makes it.
        """
        return []

    def misfits(self, family: Family, data: DataSpec) -> list[Issue]:
        """Return the issues of its options with a network and data that it is for."""
        return []

    def without_scenario(self) -> Issue:
        """Return the issue with a cell that has no scenario, where one is needed."""
        from sparselab.core.errors import Issue

        fix = "add scenario=class_incremental or scenario=task_incremental"
        return Issue(f"loss.{self.name}", "recalls examples of earlier tasks, and there is one task", fix)

    def in_scenario(self, examples: int, devices: int) -> list[Issue]:
        """Return the issues with a scenario of ``examples`` training examples in all, on ``devices`` devices."""
        return []

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        """Return the unweighted loss of one batch.

        Args:
            context: the network, its family, teachers and the number of the update
            batch: tensors with the batch as first axis: inputs, targets, and what else the loader gives
            logits: (n, classes), or (n, t, vocabulary) for text, with their graph

        Returns:
            () float, before the factor ``weight``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def state(self) -> dict[str, Any]:
        """Return the state between updates, for checkpoints: plain containers and tensors; {} where there is none."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; called after :meth:`prepare`."""

    def due(self, context: StepContext) -> bool:
        """True where the update under way has this loss; else its loss is what it is without."""
        return not self.of_search or context.drawing is not False

    def share_of_task_loss(self) -> float:
        """Return the factor of the task's own loss."""
        return 1.0


LOSSES: Registry[ExtraLoss] = Registry("loss", "sparselab.training.losses")
