"""A method: a paper's rule, as the few lines in which it differs from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparselab.core.options import Options
from sparselab.core.registry import Registry
from sparselab.weights.capabilities import misused
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.schedules import Schedule
    from sparselab.weights.slot import Slot, UpdateContext


class Method:
    """Override what differs. The defaults are masked training by magnitude.

    All hooks run under ``torch.no_grad()``, once per optimiser update and slot (never per micro-batch). What only some
    methods do (learn masks, read inputs, rewind, ...) they take from :mod:`sparselab.weights.capabilities`.

    Traits, declared by the class and checked before anything runs:

    ``patterns``          names of the patterns (:data:`~sparselab.core.sparsity.PATTERNS`) that it is defined for.
    ``schedules``         names of the schedules that it is defined for; None: any whose masks are hard.
    ``keeps_master``      a dense master is updated in place of the sparse weights.
    ``every_step``        a new mask after every update once the first one is made.
    ``needs_dense_grad``  wants ``slot.dense_grad`` when a mask is due.
    ``clears_state``      the optimiser forgets weights that leave (momentum would bring them back).
    ``weight_grad``       for the account of training FLOPs: ``dense`` (all weights receive a gradient) or ``kept``; a method
                          that needs the dense gradient at mask updates is charged for those.
    ``version``           raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    patterns: ClassVar[tuple[str, ...]] = patterns_where(lambda pattern: pattern.prunes)
    schedules: ClassVar[tuple[str, ...] | None] = None
    keeps_master: bool = False
    every_step: ClassVar[bool] = False
    needs_dense_grad: ClassVar[bool] = False
    clears_state: ClassVar[bool] = True
    weight_grad: ClassVar[Literal["dense", "kept"]] = "kept"

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if problem := misused(cls, Method):
            raise TypeError(problem)

    @classmethod
    def admits(cls, schedule: type[Schedule]) -> bool:
        """True if the method is defined for this schedule."""
        return not schedule.soft if cls.schedules is None else schedule.name in cls.schedules

    def __init__(self, options: Any):
        self.options = options  # an instance of the class's own Options

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        """Importance of each weight, the slot's shape; the largest are kept.

        Args:
            slot: the layer: weight, mask, master, gradient, and what the method keeps
            context: the update: its number, the run's length, seeds, and what layers read

        Returns:
            (*weight) float, finite; ties go to the lowest flat index.
        """
        return slot.dense.abs()

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        """The new mask, bool, with ``kept`` weights (N:M patterns fix the count themselves).

        Args:
            slot: the layer: weight, mask, master, gradient, and what the method keeps
            kept: weights that stay, from 1 to the size
            context: the update: its number, the run's length, seeds, and what layers read

        Returns:
            (*weight) bool, True where a weight stays.
        """
        return slot.pattern.mask(self.score(slot, context), kept / slot.mask.numel())

    def effective(self, slot: Slot, out: Tensor) -> None:
        """Write the weights that the network computes with into ``out``.

        Args:
            slot: the layer: weight, mask, master, gradient, and what the method keeps
            out: (*weight), the dtype of the parameter; it may be the parameter itself where no master is kept
        """
        from sparselab.weights.kernels.dispatch import masked

        masked([slot.dense], [slot.mask], [out])

    def pullback(self, slot: Slot) -> None:
        """Turn the gradient of the effective weights into what the optimiser sees, in place.

        Args:
            slot: the layer; ``slot.grad`` is of the mean loss, unscaled, before clipping
        """
        from sparselab.weights.kernels.dispatch import masked

        masked([slot.grad], [slot.mask], [slot.grad])

    def after_step(self, slot: Slot) -> None:
        """After the optimiser moved the (dense) weights, before masks and effective weights are made.

        Args:
            slot: the layer; ``slot.dense`` holds what the optimiser left
        """

    @property
    def by_score(self) -> bool:
        """True if its masks keep what scores best, so that what scores worst can be asked for instead."""
        return not self.overrides("remask")

    def overrides(self, *hooks: str) -> bool:
        """True if the rule replaces any of these defaults; where it does not, several may be done in one pass."""
        return any(getattr(type(self), hook) is not getattr(Method, hook) for hook in hooks)


METHODS: Registry[Method] = Registry("method", "sparselab.weights.methods")
