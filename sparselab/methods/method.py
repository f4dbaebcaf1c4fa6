"""A method: a paper's rule, as the few lines in which it differs from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.sparsity.turn import ALL, Turn
from sparselab.spec.options import Options
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.sparsity.probe import Probe
    from sparselab.sparsity.schedule import Schedule
    from sparselab.sparsity.slots import Moment, Slot
    from sparselab.spec.dataspec import DataSpec
    from sparselab.spec.faults import Fault


class Method:
    """Override what differs. The defaults are masked training by magnitude.

    All hooks run under ``torch.no_grad()``, once per optimiser update and slot (never per micro-batch).

    Capabilities, declared by the class and checked before anything runs:

    ``patterns``          kinds of :class:`~sparselab.spec.sparsity.Sparsity` that it is defined for.
    ``schedules``         names of the schedules that it is defined for; None: any whose masks are hard.
    ``keeps_master``      a dense master is updated in place of the sparse weights.
    ``every_step``        a new mask after every update once the first one is made.
    ``axes``              along which N:M groups may run (``targets.axis``); None: any.
    ``reads_inputs``      asks ``moment.inputs(slot)`` what a layer reads on ``options.samples`` training examples.
    ``needs_dense_grad``  wants ``slot.dense_grad`` when a mask is due.
    ``clears_state``      the optimiser forgets weights that leave (momentum would bring them back).
    ``learns``            trains a tensor beside each weight: says which (``learned``, ``learn``, ``learning``).
    ``rewinds``           with each new mask the parameters return to what they were at this fraction of the way to the
                          first mask, and the optimiser forgets; None: they go on.
    ``ranks_layers``      decides how many weights each layer keeps, so the distribution has to rank scores over all layers.
    ``by_chance``         keeps each weight by a draw of its own, so that a layer's count is what was asked for on average
                          only, and patterns of several weights are not made; says what to write where counts have to be
                          exact. None: they are.
    ``scored_allocation`` set by the plan when the distribution ranks scores over all layers.
    ``blends``            has a say in the optimiser's first moment (``blend``); needs an optimiser that asks for it.
    ``weight_grad``       for the account of training FLOPs: ``dense`` (all weights receive a gradient) or ``kept``; a method
                          that needs the dense gradient at mask updates is charged for those.
    ``version``           raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    patterns: ClassVar[tuple[str, ...]] = ("unstructured", "nm", "block", "channel", "in_channel")
    schedules: ClassVar[tuple[str, ...] | None] = None
    keeps_master: bool = False
    every_step: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...] | None] = None
    reads_inputs: ClassVar[bool] = False
    needs_dense_grad: ClassVar[bool] = False
    clears_state: ClassVar[bool] = True
    weight_grad: ClassVar[str] = "kept"
    learns: ClassVar[bool] = False
    rewinds: float | None = None
    blends: ClassVar[bool] = False
    ranks_layers: bool = False
    by_chance: str | None = None
    scored_allocation: bool = False

    @classmethod
    def admits(cls, schedule: type[Schedule]) -> bool:
        """Whether the method is defined for this schedule."""
        return not schedule.soft if cls.schedules is None else schedule.name in cls.schedules

    def __init__(self, options: Options):
        self.options = options

    def faults(self, data: DataSpec) -> list[Fault]:
        """What keeps these options from working on these data. Asked by the plan, without torch."""
        return []

    def files(self) -> dict[str, str]:
        """Weights files of this very network that the rule reads, by option; the plan checks and hashes them."""
        return {}

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        """Once, before the first mask: measure what scores need. Not called when a run resumes: masks are stored."""

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        """Importance of each weight, the slot's shape; the largest are kept."""
        return slot.dense.abs()

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        """Called before new masks are made: how many weights each layer, by its name, is to keep."""

    def remask(self, slot: Slot, kept: int, moment: Moment) -> Tensor:
        """The new mask, bool, with ``kept`` weights (N:M patterns fix the count themselves; see ``by_chance``)."""
        return slot.pattern.mask(self.score(slot, moment), kept / slot.mask.numel())

    def effective(self, slot: Slot, out: Tensor) -> None:
        """Write the weights that the network computes with into ``out``."""
        from sparselab.sparsity.kernels import masked

        masked([slot.dense], [slot.mask], [out])

    def begin(self, slots: list[Slot], moment: Moment) -> None:
        """Before the pull-backs of an update; ``moment.step`` is its number, from 1. What has to outlast it is kept in
        ``slot.state``, which checkpoints hold."""

    def blend(self, slot: Slot, weight: Tensor, first: Tensor) -> Tensor:
        """What the optimiser uses in place of its first moment ``first`` of the (dense) ``weight``: a new tensor."""
        return first

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """Numbers about the finished run, for the record's ``train.*`` metrics."""
        return {}

    def pullback(self, slot: Slot) -> None:
        """Turn the gradient of the effective weights into what the optimiser sees, in place."""
        from sparselab.sparsity.kernels import masked

        masked([slot.grad], [slot.mask], [slot.grad])

    def pullbacks(self, slots: list[Slot]) -> None:
        """:meth:`pullback` of all layers. A rule with a kernel for it does them in one launch."""
        from sparselab.sparsity.kernels import masked

        if self.overrides("pullback"):
            for slot in slots:
                self.pullback(slot)
        else:
            grads = [slot.grad for slot in slots]
            masked(grads, [slot.mask for slot in slots], grads)

    def after_step(self, slot: Slot) -> None:
        """After the optimiser moved the (dense) weights, before masks and effective weights are made."""

    def overrides(self, *hooks: str) -> bool:
        """Whether the rule replaces any of these defaults; where it does not, several may be done in one pass."""
        return any(getattr(type(self), hook) is not getattr(Method, hook) for hook in hooks)

    # -- for methods on two levels, and those that train something beside the weights --------------------------------

    def turn(self, step: int, total: int) -> Turn:
        """What update ``step`` (from 1) of ``total`` moves. A function of the step alone, so that it needs no state.

        Masks that move ``every_step`` stay in updates whose turn has nothing ``learned``.
        """
        return ALL

    def learned(self, slot: Slot) -> Tensor:
        """Where ``slot.learned`` starts: any shape, copied. The optimiser trains it in a group of its own."""
        raise NotImplementedError(f"{type(self).__name__} learns and does not say what")

    def learn(self, slot: Slot) -> Tensor:
        """The gradient of ``slot.learned``, from ``slot.grad``, the dense gradient of the effective weights."""
        raise NotImplementedError(f"{type(self).__name__} learns and has no gradient for it")

    def learning(self) -> dict[str, Any]:
        """What the optimiser does differently with it: ``lr``, and ``schedule`` (a shape of ``optim.schedule``)."""
        return {}


METHODS: Registry[Method] = Registry("method", "sparselab.methods")
