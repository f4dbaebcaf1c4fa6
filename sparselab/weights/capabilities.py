"""Capabilities: what some methods do beside the five hooks of :class:`~sparselab.weights.method.Method` [no torch].

A method names its capabilities before its base, ``class IMP(Rewinds, Method)``; planning, the sparsifier and the account ask
``isinstance(method, Rewinds)``. A new capability is a class here, its name in :data:`CAPABILITIES`, and the one place that asks
for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.errors import Issue
from sparselab.weights.alternating import ALL, AlternatingUpdate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.core.data_spec import DataSpec
    from sparselab.weights.probe import Probe
    from sparselab.weights.schedules import Schedule
    from sparselab.weights.slot import Slot, UpdateContext


class MeasuresFirst:
    """Looks at the weights or at training batches before the first mask."""

    name: ClassVar[str]

    def issues(self, data: DataSpec) -> list[Issue]:
        """Return the issues that keep these options from working on these data. Called while planning, without torch."""
        return []

    def measured_in_vain(self) -> Issue | None:
        """Return the issue with masks that the cell is given (``targets.masks``); None where nothing is measured for them."""
        return masks_given(self.name)

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        """Measure what scores need, once.

        Not called when a run resumes or is given its masks: there is nothing to choose.

        Args:
            slots: the sparse layers, all weights still dense
            probe: the network, its loss and batches of training data
        """
        raise NotImplementedError(f"{type(self).__name__} measures first and does not say what")


class ReadsInputs:
    """Asks ``context.inputs(slot)`` what a layer reads on ``options.samples`` training examples; of a distribution, too.

    axes: along which N:M groups may run (``targets.axis``) where the rule solves along the inputs; None: any.
    """

    axes: ClassVar[tuple[str, ...] | None] = None
    options: Any


class ReadsFiles:
    """Reads weights files of this very network."""

    def files(self) -> dict[str, str]:
        """Path by option; the plan checks and hashes them."""
        raise NotImplementedError(f"{type(self).__name__} reads files and does not say which")


class RanksLayers:
    """Decides how many weights each layer keeps, so the distribution has to rank its scores over all layers.

    ranks_layers: False where these options leave it to the distribution.
    """

    ranks_layers: bool = True


class KeepsByChance:
    """Keeps each weight by a draw of its own.

    A layer's count is then what was asked for on average only, and patterns of several weights are not made.

    by_chance: what to write where counts have to be exact; None: with these options they are.
    """

    by_chance: str | None = None


class TakesBiases:
    """Trains the biases of whole units with their weights: ``slot.bias``, with dense values of its own beside it.

    What ``effective``, ``pullback`` and ``learn`` do to a weight they do to it, too, where it is not None.

    takes_biases: False where these options leave biases to the network.
    """

    takes_biases: bool = True


class FindsCounts:
    """How many weights stay is an outcome of the rule: the total need not be the one that is asked for.

    finds_counts: False where these options leave the counts as they are asked for.
    """

    finds_counts: bool = True


class ReadsScales:
    """Ranks units by the scales of norms behind their layers, ``slot.scale``: every sparse layer has to have them."""


class KnowsCounts:
    """Is told how many weights every layer keeps."""

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        """Called before new masks are made: how many weights each layer, by its name, is to keep.

        Args:
            slots: the sparse layers
            kept: weights that stay, by ``layer.name``
        """
        raise NotImplementedError(f"{type(self).__name__} is told the counts and does nothing with them")


class LearnsTensors:
    """Trains a tensor beside each weight, ``slot.learned``, in a parameter group of its own that is never decayed."""

    def learned(self, slot: Slot) -> Tensor | None:
        """Return the start of ``slot.learned``: any shape, copied; None: with these options there is nothing to learn.

        Args:
            slot: the layer, before its first mask

        Returns:
            Any float tensor; the optimiser moves a copy of it.
        """
        raise NotImplementedError(f"{type(self).__name__} learns and does not say what")

    def learn(self, slot: Slot) -> Tensor:
        """The gradient of ``slot.learned``, from ``slot.grad``, the dense gradient of the effective weights.

        Args:
            slot: the layer; ``slot.grad`` has the shape of the weight

        Returns:
            The shape of ``slot.learned``.
        """
        raise NotImplementedError(f"{type(self).__name__} learns and has no gradient for it")

    def before_learning(self, slots: list[Slot]) -> None:
        """Called before :meth:`learn` of an update, with the gradients of all layers in place.

        Here layers learn what they need to know of each other. What has to outlast the update is kept in ``slot.state``,
        which checkpoints hold.
        """

    def learning(self) -> dict[str, Any]:
        """Return the optimiser's settings for it: ``lr``, and ``schedule`` (a shape of ``optim.schedule``)."""
        return {}


class DrawsMasks:
    """Computes with masks drawn anew for every update until its first mask is made, which so is searched for.

    All micro-batches of an update, on all ranks, see one draw (a function of the seed, the layer and the update). Between
    updates the parameters are what they are without draws: the dense weights, and from the first mask on the sparse ones.
    """

    def draw(self, slot: Slot, context: UpdateContext, out: Tensor) -> None:
        """Write the weights of update ``context.step`` (from 1) into ``out``; ``context.random`` has its numbers.

        Args:
            slot: the layer
            context: the update; every rank and every restart draws the same numbers
            out: (*weight), the dtype of the parameter
        """
        raise NotImplementedError(f"{type(self).__name__} draws masks and does not say how")


class FollowsSchedule:
    """Does other things before a mask is made than after it. ``schedule`` is the cell's, which the plan gives it."""

    schedule: Schedule


class Alternates:
    """Moves only a part of the network in some updates, as methods on two levels do."""

    def alternating_update(self, step: int, total: int) -> AlternatingUpdate:
        """Return the parts that update ``step`` (from 1) of ``total`` moves. A function of the step alone: it needs no state.

        Masks that move ``every_step`` stay in updates whose turn has nothing ``learned``.
        """
        raise NotImplementedError(f"{type(self).__name__} alternates and does not say how")


class ChangesMoments:
    """Has a say in the optimiser's first moment; needs an optimiser that asks for it (``Optim.blends``)."""

    def begin(self, slots: list[Slot], context: UpdateContext) -> None:
        """Before the pull-backs of an update; ``context.step`` is its number, from 1.

        What has to outlast the update is kept in ``slot.state``, which checkpoints hold.
        """

    def blend(self, slot: Slot, weight: Tensor, first: Tensor) -> Tensor:
        """Return the optimiser's replacement for its first moment ``first`` of the (dense) ``weight``: a new tensor.

        Args:
            slot: the layer
            weight: (*weight) dense
            first: (*weight), the optimiser's first moment after this update

        Returns:
            (*weight), the dtype of ``first``.
        """
        raise NotImplementedError(f"{type(self).__name__} changes moments and does not say how")


class ReadsMemory:
    """Makes masks by what the optimiser remembers of gradients (``context.memory``).

    reads_memory: the option by which it does, as one writes it; None: with its options it does not.
    """

    reads_memory: str | None = None


class Rewinds:
    """With each new mask the parameters return to earlier values, and the optimiser forgets.

    rewinds: fraction of the way to the first mask at which these values are taken; None: parameters go on.
    """

    rewinds: float | None = None


class PullsBackTogether:
    """Has a kernel that pulls the gradients of all layers back in one launch."""

    def pullbacks(self, slots: list[Slot]) -> None:
        """``pullback`` of all these slots."""
        raise NotImplementedError(f"{type(self).__name__} pulls back together and does not say how")

    def pullback(self, slot: Slot) -> None:
        self.pullbacks([slot])


class KnowsTasks:
    """Is told where the tasks of a scenario begin and end, and has weights for each; its schedule begins anew with each task.

    Without a scenario there is one task, whose end nobody tells. ``context.within`` is 0 where a task's first mask is made.

    isolates: what was learnt for a task never changes, to the bit. So no parameter may be outside of masks, nothing may decay,
    and the optimiser has to begin anew; the plan checks it.
    """

    name: ClassVar[str]
    isolates: bool = False

    def end_task(self, slots: list[Slot], task: int) -> None:
        """Called after the last update of ``task``, before it is scored.

        What has to outlast the task is kept in ``slot.state``, which checkpoints hold.

        Args:
            slots: the sparse layers
            task: its number, from 0
        """

    def of_task(self, slot: Slot, task: int, out: Tensor) -> None:
        """Write the weights that solve ``task``, which is over, into ``out``.

        Args:
            slot: the layer
            task: its number, from 0
            out: (*weight), the dtype of the parameter
        """
        raise NotImplementedError(f"{type(self).__name__} knows tasks and has no weights for them")

    def kept(self, slots: list[Slot]) -> dict[str, Tensor]:
        """Return what a finished run leaves of its tasks, tensors by name; they are a file beside the network."""
        return {}


class Reports:
    """Has numbers of its own about the finished run."""

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """Value by name, for the record's ``train.*`` metrics.

        Args:
            slots: the sparse layers after the last update

        Returns:
            Finite numbers by name; the record has them as ``train.<name>``.
        """
        raise NotImplementedError(f"{type(self).__name__} reports and does not say what")


def masks_given(method: str) -> Issue:
    """The issue of a cell that is given its masks and whose method would choose masks of its own at some expense."""
    problem = f"method={method} looks for a mask of its own, and this one would stand in its place"
    return Issue("targets.masks", problem, "write method=ticket, or leave it out")


CAPABILITIES = (
    MeasuresFirst, ReadsInputs, ReadsFiles, RanksLayers, KeepsByChance, TakesBiases, FindsCounts, ReadsScales, KnowsCounts,
    LearnsTensors, DrawsMasks, FollowsSchedule, Alternates, ChangesMoments, ReadsMemory, Rewinds, PullsBackTogether, KnowsTasks,
    Reports,
)  # fmt: skip


def misused(cls: type, base: type) -> str | None:
    """Return the problem with the capabilities of a subclass of ``base``; None if there is none.

    A hook of a capability that the class does not name would never be called, and one behind the base would be hidden.
    """
    order = cls.__mro__
    for capability in CAPABILITIES:
        if capability not in order:
            unused = sorted(name for name in vars(cls).keys() & vars(capability).keys() if name[0] != "_")
            unused = [name for name in unused if not hasattr(base, name)]
            if unused:
                needed = f"class {cls.__name__}({capability.__name__}, {base.__name__})"
                return f"{cls.__name__}.{unused[0]} belongs to the capability {capability.__name__}: write {needed}"
        elif order.index(capability) > order.index(base):
            return f"{cls.__name__}: the capability {capability.__name__} stands before {base.__name__}"
    return None


def by_chance(method: object) -> str | None:
    """Return the override that makes counts exact, if ``method`` draws each weight by itself; else None."""
    return method.by_chance if isinstance(method, KeepsByChance) else None


def finds_counts(method: object) -> bool:
    """True where the number of weights that stay is what ``method`` finds, whatever was asked for."""
    return isinstance(method, FindsCounts) and method.finds_counts


def takes_biases(method: object) -> bool:
    """True where ``method`` trains the biases of whole units with their weights."""
    return isinstance(method, TakesBiases) and method.takes_biases


def ranks_layers(method: object) -> bool:
    """True where ``method`` decides how many weights each layer keeps."""
    return isinstance(method, RanksLayers) and method.ranks_layers


def alternating_update(method: object, step: int, total: int) -> AlternatingUpdate:
    """Return the parts that update ``step`` (from 1) of ``total`` moves: all, unless the method alternates."""
    return method.alternating_update(step, total) if isinstance(method, Alternates) else ALL
