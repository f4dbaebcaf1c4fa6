"""Replay: examples of earlier tasks, kept in a small buffer, are trained on beside new ones [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext
    from sparselab.training.scenarios.torch_side.reservoir import Reservoir


class ReplayOptions(ExtraLoss.Options):
    """Options of every replay."""

    buffer: int = Field(ge=1, description="examples in the buffer, at least 1")
    batch: int = Field(ge=1, description="examples of it that an update draws, at least 1")
    first_task: bool = Field(description="true or false: replay in the first task, too")


class Replay(ExtraLoss):
    """Base: a reservoir of training examples, in which every example of every epoch is seen once.

    Its passes are beside the batch's own, so that batch norms look at either apart. Examples are augmented anew.
    """

    Options: ClassVar[type[ReplayOptions]] = ReplayOptions
    options: ReplayOptions
    needs_scenario = True
    keeps_outputs: ClassVar[bool] = False
    replays = 1
    own_passes = 3  # a draw: forward, and backward for weights and inputs
    reservoir: Reservoir

    def in_scenario(self, examples: int, devices: int) -> list[Issue]:
        found, size = [], self.options.buffer
        if size > examples:
            problem = f"the tasks have {examples:,} training examples in all"
            found.append(Issue(f"loss.{self.name}.buffer={size}", problem, f"write at most {examples}"))
        if devices > 1:
            problem = f"each process of loss.{self.name} would fill a buffer of its own"
            found.append(Issue(f"trainer.devices={devices}", problem, "write trainer.devices=1"))
        return found

    def prepare(self, context: StepContext) -> None:
        from sparselab.core.seeds import derive_seed
        from sparselab.training.scenarios.torch_side.reservoir import Reservoir

        assert context.course is not None  # the plan says so
        self.reservoir = Reservoir(self.options.buffer, derive_seed(context.course.seed, "buffer"))
        self.device = context.device

    def state(self) -> dict[str, Any]:
        return self.reservoir.state() if hasattr(self, "reservoir") else {}

    def load(self, state: dict[str, Any]) -> None:
        self.reservoir.load(state, self.device)

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        course = context.course
        assert course is not None
        due = len(self.reservoir) and (self.options.first_task or course.task(context.global_step))
        loss = self.replayed(context) if due else logits.new_zeros(())
        self.reservoir.add(batch[2], logits.detach() if self.keeps_outputs else None)
        return loss

    def replayed(self, context: StepContext) -> Tensor:
        """The loss of one or more draws from the buffer: a scalar."""
        raise NotImplementedError(f"{type(self).__name__} replays and has no loss")

    def recalled(self, context: StepContext, which: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """A draw from the buffer: (logits (k, outputs) with their graph, labels (k,), places (k,) in the buffer)."""
        places = self.reservoir.draw(self.options.batch, which)
        assert context.course is not None
        inputs, labels = context.course.recalled(self.reservoir.examples[places], self.reservoir.key(which))
        return context.again(inputs).float(), labels, places


@LOSSES.register("er")
class ExperienceReplay(Replay):
    """Experience replay: cross-entropy of old examples among all classes, in a pass of its own, as in neu-spiral/SparCL.

    aimagelab/mammoth ``models/er.py`` joins old and new examples in one batch and takes one mean.
    """

    class Options(ReplayOptions):
        pass

    options: Options

    def replayed(self, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        logits, labels, _ = self.recalled(context)
        return F.cross_entropy(logits, labels)


@LOSSES.register("derpp")
class DarkReplay(Replay):
    """Dark experience replay ++ (Buzzega et al. 2020, arXiv 2004.07211; aimagelab/mammoth ``models/derpp.py``).

    Logits of one draw are pulled to those that the network had when it saw the examples; of a second draw the labels are
    learnt: ``alpha * MSE + beta * cross-entropy``.
    """

    class Options(ReplayOptions):
        alpha: float = Field(ge=0, description="weight of the squared error of logits, at least 0")
        beta: float = Field(ge=0, description="weight of the cross-entropy of the second draw, at least 0")

    options: Options
    keeps_outputs = True
    replays = 2
    own_passes = 6

    def replayed(self, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        logits, _, places = self.recalled(context, 0)
        assert self.reservoir.outputs is not None
        before = self.reservoir.outputs[places.to(self.reservoir.outputs.device)]
        loss = self.options.alpha * F.mse_loss(logits, before)
        logits, labels, _ = self.recalled(context, 1)
        return loss + self.options.beta * F.cross_entropy(logits, labels)
