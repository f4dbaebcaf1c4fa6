"""Dynamic sparse training of several tasks in one network, each in connections of its own [no torch at import]."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import RunFailed
from sparselab.core.options import Options
from sparselab.weights.capabilities import FindsCounts, KeepsByChance, KnowsTasks, ReadsMemory, Reports
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.slot import Slot, UpdateContext


class IsolatedOptions(Options):
    """Which connections die and grow, and what is left of tasks before."""

    death: Literal["magnitude", "set", "taylor"] = Field(description="magnitude, set or taylor: which connections die")
    growth: Literal["random", "unfired", "gradient", "momentum"] = Field(
        description="random, unfired, gradient or momentum: which connections grow"
    )
    draw: Literal["exact", "bernoulli"] = Field(
        description="exact or bernoulli: each connection of a first mask, and of random growth, by itself"
    )
    fresh: Literal["zero", "drawn"] = Field(
        description="zero or drawn: where connections that no task has used begin, from the second task on"
    )
    regrown: Literal["zero", "stored"] = Field(
        description="zero or stored: what a frozen weight that grows again is worth until its task is over"
    )
    isolate: bool = Field(description="true or false: weights that a task before has used are frozen")


@METHODS.register("cl_dst")
class Isolated(KnowsTasks, KeepsByChance, FindsCounts, ReadsMemory, Reports, Method):
    """Continual learning with dynamic sparse training (Yildirim et al. 2023, arXiv 2308.14831).

    One dense store (the master) has the weights of all tasks. Each task begins with a random mask of its own, exchanges
    connections, and moves only weights that no task before has used; its mask is kept, and store x mask solves it from then on.
    ``slot.state``: ``stored``, the store as the task found it; ``used``, weights of tasks that are over; ``masks`` (tasks,
    *weight) of these; ``asleep``, frozen weights that grew again and are worth nothing yet; ``fired``, connections that this
    task has had.
    """

    Options = IsolatedOptions
    options: IsolatedOptions
    patterns = patterns_where(lambda pattern: pattern.free)
    schedules = ("periodic",)
    keeps_master = True
    clears_state = False
    weight_grad = "dense"  # the optimiser's moments are of all weights, in use or not

    @property
    def needs_dense_grad(self) -> bool:  # type: ignore[override]
        return self.options.growth == "gradient" or self.options.death == "taylor"

    @property
    def reads_memory(self) -> str | None:  # type: ignore[override]
        return "method.growth=momentum" if self.options.growth == "momentum" else None

    @property
    def isolates(self) -> bool:  # type: ignore[override]
        return self.options.isolate

    @property
    def by_chance(self) -> str | None:  # type: ignore[override]
        return "method.draw=exact" if self.options.draw == "bernoulli" else None

    @property
    def finds_counts(self) -> bool:  # type: ignore[override]
        return self.options.draw == "bernoulli" and self.options.growth == "random"

    # -- a mask ------------------------------------------------------------------------------------------------------

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        if context.within == 0:
            return self._first(slot, kept, context)
        from sparselab.weights import exchange

        mask, weight, connections = slot.mask, self._working(slot), int(slot.mask.sum())
        remove = ceil(context.fraction * connections)
        if not remove:
            return mask
        if self.options.death == "taylor":
            alive = exchange.taylor_death(weight, self._open(slot, self._gradient(slot)), mask, remove)
        else:
            rules = {"magnitude": exchange.magnitude_death, "set": exchange.signed_death}
            alive = rules[self.options.death](weight, mask, remove)
        grown = self._grown(slot, alive, connections - int(alive.sum()), context)
        self._wake(slot, alive, grown)
        return alive | grown

    def _first(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        """The random mask that a task begins with."""
        assert slot.master is not None
        chance = self.by_chance is not None
        mask = (
            context.bernoulli(slot, kept)
            if chance
            else slot.pattern.mask(context.random(slot), kept / slot.mask.numel())
        )
        if self.options.growth == "unfired":
            slot.state["fired"] = mask.clone()
        slot.master.copy_(_stored(slot))
        return mask

    def _grown(self, slot: Slot, alive: Tensor, count: int, context: UpdateContext) -> Tensor:
        from sparselab.weights import exchange

        growth = self.options.growth
        if growth == "random" and self.by_chance:
            return (context.random(slot) < count / max(1, int((~alive).sum()))) & ~alive
        if growth == "gradient":
            score = self._open(slot, self._gradient(slot)).abs()
        elif growth == "momentum":
            score = self._momentum(slot, context)
        else:
            score = context.random(slot)
        if growth == "unfired":
            score = exchange.unfired_first(score, slot.state.setdefault("fired", slot.mask.clone()))
        grown = exchange.grown(score, alive, count)
        if growth == "unfired":
            slot.state["fired"] |= grown
        return grown

    def _wake(self, slot: Slot, alive: Tensor, grown: Tensor) -> None:
        """Give weights to what has grown: nothing, unless it is frozen and ``regrown`` says otherwise."""
        assert slot.master is not None
        slot.master.copy_(slot.master.where(alive, _stored(slot)))
        frozen = self._frozen(slot)
        slot.master.masked_fill_(grown if frozen is None else grown & ~frozen, 0.0)
        if frozen is not None and self.options.regrown == "zero":
            asleep = grown & frozen
            slot.state["asleep"] = asleep | slot.state["asleep"] & alive if "asleep" in slot.state else asleep

    def _momentum(self, slot: Slot, context: UpdateContext) -> Tensor:
        from sparselab.weights import exchange

        memory = context.memory(slot)
        if "exp_avg" in memory:
            return exchange.adam_momentum(memory["exp_avg"], memory["exp_avg_sq"])
        if memory.get("momentum_buffer") is None:
            raise RunFailed(f"{slot.name}: the optimiser has no momentum to grow by — write method.growth=gradient")
        return memory["momentum_buffer"].abs()

    def _gradient(self, slot: Slot) -> Tensor:
        assert slot.dense_grad is not None  # asked for by needs_dense_grad
        return slot.dense_grad

    # -- an update ---------------------------------------------------------------------------------------------------

    def pullback(self, slot: Slot) -> None:
        frozen = self._frozen(slot)
        if frozen is not None:
            slot.grad.masked_fill_(frozen, 0.0)

    def after_step(self, slot: Slot) -> None:
        """Bring weights that are no connection back to what the store has."""
        assert slot.master is not None
        slot.master.copy_(slot.master.where(slot.mask, _stored(slot)))

    def effective(self, slot: Slot, out: Tensor) -> None:
        _stored(slot)  # before the first update at the latest
        out.copy_(self._working(slot))

    def _working(self, slot: Slot) -> Tensor:
        """The weights of the task under way."""
        weight = slot.dense * slot.mask
        return weight.masked_fill_(slot.state["asleep"], 0.0) if "asleep" in slot.state else weight

    def _frozen(self, slot: Slot) -> Tensor | None:
        """Return the weights of tasks that are over; None where they may move, or there is none."""
        return slot.state.get("used") if self.options.isolate else None

    def _open(self, slot: Slot, grad: Tensor) -> Tensor:
        """A gradient as the optimiser sees it: none of frozen weights."""
        frozen = self._frozen(slot)
        return grad if frozen is None else grad.masked_fill(frozen, 0.0)

    # -- a task ------------------------------------------------------------------------------------------------------

    def end_task(self, slots: list[Slot], task: int) -> None:
        import torch

        for slot in slots:
            assert slot.master is not None
            state, mask, weight = slot.state, slot.mask, self._working(slot)
            if task or self.options.fresh == "drawn":
                weight = torch.where(weight == 0, _stored(slot), weight)
            slot.master.copy_(weight)
            state["stored"] = weight.clone()
            state["used"] = mask | state["used"] if "used" in state else mask.clone()
            masks = mask.unsqueeze(0)
            state["masks"] = torch.cat([state["masks"], masks]) if "masks" in state else masks.clone()
            state.pop("asleep", None)

    def of_task(self, slot: Slot, task: int, out: Tensor) -> None:
        out.copy_(slot.dense * slot.state["masks"][task])

    def kept(self, slots: list[Slot]) -> dict[str, Tensor]:
        """Weights of all tasks by name of the tensor, and their masks (tasks, *weight) by that name and ``:masks``."""
        found = {slot.name: slot.dense for slot in slots}
        return found | {f"{slot.name}:masks": slot.state["masks"] for slot in slots}

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        """``used<t>``: share of the weights that tasks up to t have used; ``density<t>``: share that task t has.

        ``used`` is that of all tasks, ``density`` the mean over them. Nothing before a task is over.
        """
        found: dict[str, float] = {}
        done = min((len(slot.state.get("masks", ())) for slot in slots), default=0)
        weights = sum(slot.mask.numel() for slot in slots)
        for task in range(done):
            used = sum(int(slot.state["masks"][: task + 1].any(0).sum()) for slot in slots)
            found[f"used{task}"] = used / weights
            found[f"density{task}"] = sum(int(slot.state["masks"][task].sum()) for slot in slots) / weights
        if done:
            found["used"] = found[f"used{done - 1}"]
            found["density"] = sum(found[f"density{task}"] for task in range(done)) / done
        return found


def _stored(slot: Slot) -> Tensor:
    """Return the store as the task under way found it, the initial weights in the first one."""
    assert slot.master is not None
    if "stored" not in slot.state:
        slot.state["stored"] = slot.master.clone()
    return slot.state["stored"]
