"""The sparsifier: the one place where masks, dense masters and the optimiser meet.

The invariant: **outside** ``optimizer.step()`` **the network's parameters are the sparse model.** Whoever reads the
network between steps (forward, evaluation, EMA, a checkpoint, export) sees exactly what a paper evaluates. A dense
master copy, where a method has one, lives in the slot, beside the network.

One optimiser update::

    sparsifier.before_forward() a method that draws masks puts the weights of this update's draw into the parameter
    backward                    dL/dW_effective lands in .grad, dense
    sparsifier.before_step()      method.pullback rewrites .grad; the master, if any, goes into the parameter
    clip, optimizer.step()
    sparsifier.after_step(...)    method.after_step; a new mask if one is due; effective weights back into the parameter

A step that the loss scaler skips never reaches ``after_step``; ``unswap`` then puts the effective weights back, as it does
after every micro-batch where masks are drawn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import RunFailed
from sparselab.weights.capabilities import (
    ChangesMoments,
    DrawsMasks,
    KnowsCounts,
    KnowsTasks,
    LearnsTensors,
    MeasuresFirst,
    PullsBackTogether,
    Rewinds,
    ThinsGradients,
    alternating_update,
)
from sparselab.weights.count import nearest_count
from sparselab.weights.kernels.dispatch import count, masked
from sparselab.weights.patterns.pattern import n_of_m_on_device
from sparselab.weights.slot import Slot, UpdateContext, no_inputs
from sparselab.weights.whole_units import WholeUnits

if TYPE_CHECKING:
    from sparselab.weights.alternating import AlternatingUpdate
    from sparselab.weights.method import Method
    from sparselab.weights.probe import Probe
    from sparselab.weights.schedules import Schedule

LOOK_EVERY = 64
"""Updates between two looks at a device that makes masks by itself."""

Allocate = Callable[[float, "dict[str, Tensor] | None"], "dict[str, int]"]
"""(share of the way from dense to final, scores where the distribution needs them) -> weights kept per layer."""


class Sparsifier:
    """Carries a method's masks through a run. Knows neither Lightning nor any method by name."""

    def __init__(
        self,
        method: Method,
        slots: list[Slot],
        schedule: Schedule,
        allocate: Allocate,
        total: int,
        seed: int,
        ranked: bool = False,
        judge: Callable[[Slot, UpdateContext], Tensor] | None = None,
        units: WholeUnits | None = None,
    ) -> None:
        self.method = method
        self.slots = slots
        self.training = [slot for slot in slots if slot.param.requires_grad]  # the others' weights are frozen
        self.schedule = schedule
        self.allocate = allocate
        self.total = total
        self.seed = seed
        self.ranked = ranked  # ``allocate`` looks at scores of all layers
        self.judge = judge  # whose scores these are, if not the method's
        self.units = units or WholeUnits([], [])  # what goes with the units that masks drop
        self.rewinds = method.rewinds if isinstance(method, Rewinds) else None
        # How each slot gets to its own pattern; most have the same one.
        schedules = {pattern: schedule.for_target(pattern) for pattern in {slot.pattern.sparsity for slot in slots}}
        self.schedules = [schedules[slot.pattern.sparsity] for slot in slots]
        self.updates = sorted({update for way in schedules.values() for update in way.updates(total)})
        self.carried_out = 0  # how many of ``updates`` have been made
        self.made = 0  # when the masks in force were made
        # Kept weights per layer from a step on, noted where a mask is due and at the end. (Where layers are ranked
        # together and masks move at every update, weights shift between layers in between; their total stands.)
        self.ledger: list[tuple[int, dict[str, int]]] = []
        self.swapped = False
        self.drawn = False  # the parameters are the weights of a draw, which nobody but an update's own passes may see
        self.early: list[Tensor] = []  # all parameters, in the optimiser's order, as rewinding brings them back
        # Mask and effective weights of the usual rule are made while a weight is looked at once.
        self.one_pass = not (self.units or method.overrides("score", "remask", "effective"))
        # Gradients of pruned weights are zero and so is what the optimiser remembers of them: one that leaves zeros alone
        # under such gradients leaves nothing to write between two masks.
        self.stays = (
            method.clears_state
            and not (self.units or method.keeps_master or isinstance(method, LearnsTensors) or schedule.soft)
            and not method.overrides("effective", "pullback", "after_step")
        )
        self.written = False  # the parameters are the sparse model of the masks in force, but for updates since
        self.broken: Tensor | None = None  # on a device: layers whose scores were not finite since the last look
        self.track = False  # count mask entries that change; costs a pass over the masks
        self.changed = torch.zeros(2, dtype=torch.int64, device=slots[0].mask.device if slots else "cpu")
        self.on_mask_change: Callable[[], None] = lambda: None
        self.on_last_cut: Callable[[], None] | None = None  # just before a dense network is cut at the end of the run
        self.smallest = False  # keep the smallest scores in place of the largest
        self.shuffled = False  # permute each mask within its layer once it is made
        self.begins: tuple[int, ...] = (0,)  # updates done when each task of a scenario begins
        self.epochs: tuple[int, ...] = (0,)  # updates done when each epoch begins
        self.given: dict[str, Tensor] | None = (
            None  # the masks to begin with, by name of the tensor, in place of the method's
        )
        self.inputs: Callable[[Slot], Tensor] = no_inputs
        self.judged_inputs: Callable[[Slot], Tensor] = no_inputs  # as ``judge`` is told them
        for slot in slots:
            slot.kept = slot.mask.numel()
            if method.keeps_master:
                slot.keep_master()
            if isinstance(method, LearnsTensors) and (start := method.learned(slot)) is not None:
                slot.learned = nn.Parameter(start.detach().clone())

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the method its say in the optimiser's first moments, where it wants one."""
        if isinstance(self.method, ChangesMoments):
            optimizer.blends = {slot.param: partial(self.method.blend, slot) for slot in self.slots}  # type: ignore[attr-defined]

    # -- the calls of an update -----------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, probe: Probe | None = None) -> None:
        """Before the first update: the masks that are due at step 0. ``probe``: for methods that measure first."""
        if isinstance(self.method, MeasuresFirst) and self.slots and probe is not None and self.given is None:
            self.method.prepare(self.slots, probe)
        self._note(0)
        if self._due(0):
            self._remask(0, None)
        else:
            self._write_effective()

    @torch.no_grad()
    def refresh(self) -> None:
        """Set pruned weights to zero again after the network was changed between two updates."""
        self._write_effective()

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        """Before each forward pass of update ``step``: the weights of its draw, where the method searches by draws."""
        if isinstance(self.method, DrawsMasks) and step <= self.updates[0]:
            context = self._context(step)
            for slot in self.slots:
                self.method.draw(slot, context, out=slot.param.data)
            self.drawn = True

    @property
    def drawing(self) -> bool | None:
        """True during an update that computes with a draw, False in others of a method that draws; None if it draws none."""
        return self.drawn if isinstance(self.method, DrawsMasks) else None

    @contextmanager
    def without_masks(self) -> Iterator[None]:
        """Inside, during a forward pass, the network computes with its dense weights, where the method keeps them."""
        held = [slot for slot in self.slots if slot.master is not None]
        for slot in held:
            slot.swap()
        try:
            yield
        finally:
            for slot in held:
                slot.swap()

    @torch.no_grad()
    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """After backward, before clipping: gradients as the optimiser must see them. ``step`` is the update to come."""
        wants_dense = self.method.needs_dense_grad and self._due(step)
        update = alternating_update(self.method, step, self.total)
        if isinstance(self.method, ChangesMoments):
            self.method.begin(self.slots, self._context(step))
        if isinstance(self.method, ThinsGradients):
            self.method.begin_update(self.slots, self._context(step))
        if isinstance(self.method, LearnsTensors) and update.learned:
            self.method.before_learning([slot for slot in self.slots if slot.learned is not None])
        for slot in self.training:
            slot.dense_grad = slot.grad.detach().clone() if wants_dense else None
            if isinstance(self.method, LearnsTensors) and slot.learned is not None:
                slot.learned.grad = self.method.learn(slot) if update.learned else None
        if update.weights:
            self._before_step()
        if self.training:
            self.units.pull_back()
        if optimizer is not None and self.rewinds is not None and not self.early:
            self._keep_early(step, optimizer)
        if optimizer is not None and not (update.weights and update.others):
            self._hold(update, optimizer)
        self._swap()

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """After the raw optimiser's step number ``step``: new masks where due, effective weights in the parameters."""
        self._swap_back()
        update = alternating_update(self.method, step, self.total)
        for slot in self.training if update.weights else []:
            self.method.after_step(slot)
        if self._due(step):
            self._remask(step, optimizer)
            self._rewind(optimizer)
            self.on_mask_change()
        elif self.method.every_step and self.carried_out and update.learned:
            self._remask(step, optimizer)
        elif not (self.stays and self.written and getattr(optimizer, "keeps_zeros", False)):
            self._write_effective()
        for slot in self.slots:
            slot.dense_grad = None

    @torch.no_grad()
    def unswap(self) -> None:
        """At the end of every batch: undo a swap whose optimiser step was skipped, and what was drawn for the batch."""
        if self.swapped:
            self._swap_back()
        if self.drawn:
            self._write_effective()

    @torch.no_grad()
    def finish(self) -> None:
        """After the last update: carry out what a skipped last step left undone, and close the ledger.

        An exchange by gradient is not made up for: what it grows would never be trained.
        """
        if self._due(self.total) and not self.method.needs_dense_grad:
            self._remask(self.total, None)
        self._note(self.total)

    # -- between tasks ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def end_task(self, task: int) -> None:
        """After the last update of ``task``: the method keeps of it what it needs."""
        if isinstance(self.method, KnowsTasks):
            self.method.end_task(self.slots, task)
            self._write_effective()

    @torch.no_grad()
    def begin_task(self, task: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Before the first update of ``task``, after ``step`` updates of the run: the masks that it begins with."""
        if isinstance(self.method, KnowsTasks) and self.slots:
            self._remask(step, optimizer, begins=True)
            self.on_mask_change()

    @contextmanager
    def as_task(self, task: int) -> Iterator[None]:
        """Inside, the network has the weights that solve ``task``, where the method keeps some for each."""
        if isinstance(self.method, KnowsTasks):
            with torch.no_grad():
                for slot in self.slots:
                    self.method.of_task(slot, task, out=slot.param.data)
        try:
            yield
        finally:
            if isinstance(self.method, KnowsTasks):
                with torch.no_grad():
                    self._write_effective()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _due(self, step: int) -> bool:
        return bisect_right(self.updates, step) > self.carried_out

    def _before_step(self) -> None:
        if isinstance(self.method, PullsBackTogether):
            self.method.pullbacks(self.training)
        elif self.method.overrides("pullback"):
            for slot in self.training:
                self.method.pullback(slot)
        else:
            grads = [slot.grad for slot in self.training]
            masked(grads, [slot.mask for slot in self.training], grads)

    def _hold(self, update: AlternatingUpdate, optimizer: torch.optim.Optimizer) -> None:
        """Take away the gradients of what this update does not move: an optimiser passes over such parameters."""
        masked = {id(param) for slot in self.slots for param in (slot.param, slot.bias) if param is not None}
        learned = {id(slot.learned) for slot in self.slots}
        for param in _parameters(optimizer):
            if id(param) not in learned and not (update.weights if id(param) in masked else update.others):
                param.grad = None

    def _keep_early(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        first = self.updates[0] if self.updates else 0
        if self.rewinds is not None and min(nearest_count(self.rewinds, first), first - 1) < step <= first:
            dense = self._dense()
            self.early = [dense.get(id(param), param.data).clone() for param in _parameters(optimizer)]

    def _rewind(self, optimizer: torch.optim.Optimizer | None) -> None:
        if optimizer is None or not self.early:
            return
        dense = self._dense()
        for param, early in zip(_parameters(optimizer), self.early, strict=True):
            dense.get(id(param), param.data).copy_(early)
        optimizer.state.clear()
        self._write_effective()

    def _dense(self) -> dict[int, Tensor]:
        """Dense values by the identity of their parameter."""
        found = {id(slot.param): slot.dense for slot in self.slots}
        return found | {id(slot.bias): slot.dense_bias for slot in self.slots if slot.dense_bias is not None}

    def _swap(self) -> None:
        if not self.method.keeps_master:
            return
        self.swapped = True
        for slot in self.slots:
            slot.swap()

    def _swap_back(self) -> None:
        """The parameter's storage again holds the (now stale) effective weights, the slot's the updated master."""
        if self.swapped:
            self._swap()
            self.swapped = False

    def _remask(self, step: int, optimizer: torch.optim.Optimizer | None, begins: bool = False) -> None:
        """New masks, and the effective weights that they give. begins: they are a task's first ones."""
        changes = begins or self._due(step)  # else counts stand and need not be read back from the device
        first = all(slot.kept == slot.mask.numel() for slot in self.slots)  # from dense: nothing to compare with
        self.carried_out = bisect_right(self.updates, step)
        self.made = step
        level = self.schedule.level(step, self.total)
        if level <= 0:
            return self._write_effective()
        if first and step == self.total and self.on_last_cut is not None:
            self._write_effective()
            self.on_last_cut()
        self._shape(step)
        context = self._context(step, optimizer)
        kept = self._allocate(level, context)
        if isinstance(self.method, KnowsCounts):
            self.method.allocated(self.slots, kept)
        given = self.given if step == 0 else None
        one_pass = self.one_pass and given is None and not (self.smallest or self.shuffled)
        together = self._all_at_once(step, changes) if one_pass else None
        for i, slot in enumerate(self.slots):
            try:
                if given is not None:
                    mask = given[slot.name]
                elif together is not None:
                    mask = together[i]
                elif one_pass:
                    density = kept[slot.layer.name] / slot.mask.numel()
                    mask = slot.pattern.mask(slot.dense, density, magnitude=True, out=slot.param.data)
                elif self.smallest:
                    density = kept[slot.layer.name] / slot.mask.numel()
                    mask = slot.pattern.mask(-self.method.score(slot, context), density)
                else:
                    mask = self.method.remask(slot, kept[slot.layer.name], context)
                if self.shuffled:
                    mask = context.permuted(slot, mask)
            except ValueError as error:
                raise RunFailed(f"step {step}: {slot.name}: {error}") from None
            if self.method.clears_state and optimizer is not None:
                _clear_state(optimizer, slot.param, mask | ~slot.mask)
            if self.track and not first:
                self.changed[int(2 * step > self.total)] += torch.count_nonzero(slot.mask ^ mask)
            slot.mask = mask
            if changes or self.ranked:
                slot.kept = count(mask)
        if changes:
            self._note(step)
        if one_pass:
            self.written = True
        else:
            self._write_effective()
        return None

    def _all_at_once(self, step: int, look: bool) -> list[Tensor] | None:
        """Masks and effective weights of all layers in one launch, where there is one.

        Scores are looked at every ``LOOK_EVERY`` updates, at the end and where ``look`` says so: until then nothing waits for
        the device.
        """
        made = n_of_m_on_device(
            [slot.pattern for slot in self.slots],
            [slot.dense for slot in self.slots],
            [slot.param.data for slot in self.slots],
        )
        if made is None:
            return None
        masks, flags = made
        self.broken = flags if self.broken is None else self.broken | flags
        if look or step % LOOK_EVERY == 0 or step == self.total:
            for slot, flag in zip(self.slots, self.broken.tolist(), strict=True):
                if flag:
                    raise RunFailed(f"step {step}: {slot.name}: scores hold NaN or infinite values")
        return masks

    def _context(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> UpdateContext:
        begun = self.begins[bisect_right(self.begins, step) - 1]
        fraction = self.schedule.fraction(step, self.total)

        def memory(slot: Slot) -> dict[str, Tensor]:
            return {} if optimizer is None else optimizer.state.get(slot.param, {})

        epoch = self.epochs[bisect_left(self.epochs, step) - 1] if step else 0  # an update belongs to the one it ends
        return UpdateContext(step, self.total, fraction, self.seed, self.inputs, begun, memory, epoch)

    def _shape(self, step: int) -> None:
        """The structure of masks made now, and what they leave of pruned weights."""
        soft_coefficient = self.schedule.soft_coefficient(step, self.total)
        for slot, way in zip(self.slots, self.schedules, strict=True):
            slot.soft_coefficient = soft_coefficient
            if (structure := way.structure(step, self.total)) is not None:
                slot.pattern = replace(slot.pattern, sparsity=structure)

    def _allocate(self, level: float, context: UpdateContext) -> dict[str, int]:
        if not self.ranked:
            return self.allocate(level, None)
        score = self.method.score if self.judge is None else self.judge
        told = context if self.judge is None else replace(context, inputs=self.judged_inputs)
        scores = {slot.layer.name: score(slot, told) for slot in self.slots}
        if self.smallest and self.judge is None:
            scores = {name: -values for name, values in scores.items()}
        try:
            return self.allocate(level, scores)
        except ValueError as error:
            bad = next((s.name for s in self.slots if not bool(scores[s.layer.name].isfinite().all())), "all layers")
            raise RunFailed(f"step {context.step}: {bad}: {error}") from None

    def _note(self, step: int) -> None:
        kept = {slot.layer.name: slot.computing for slot in self.slots}
        if self.ledger and self.ledger[-1][0] == step:
            self.ledger.pop()
        if not self.ledger or self.ledger[-1][1] != kept:
            self.ledger.append((step, kept))

    def _write_effective(self) -> None:
        if self.method.overrides("effective"):
            for slot in self.slots:
                self.method.effective(slot, out=slot.param.data)
        else:
            dense, outs = [slot.dense for slot in self.slots], [slot.param.data for slot in self.slots]
            masked(dense, [slot.mask for slot in self.slots], outs)
        self.units.look()
        self.units.silence()
        self.written = True
        self.drawn = False

    def divergence(self) -> dict[str, float]:
        """Sparse architecture divergence (arXiv 2102.04010), summed over the run and over its second half.

        The share of all maskable weights whose mask entry differs from the one before, added up over the masks made; the
        first mask is compared with nothing. ``sad_count`` is the same in entries. Empty unless ``track`` is set.
        """
        if not self.track or not self.slots:
            return {}
        weights = sum(slot.mask.numel() for slot in self.slots)
        early, late = self.changed.tolist()
        return {"sad": (early + late) / weights, "sad_late": late / weights, "sad_count": early + late}

    def groups(self) -> list[dict[str, Any]]:
        """Return what the optimiser trains besides the network, as parameter groups: never decayed."""
        learned = {slot.name: slot.learned for slot in self.slots if slot.learned is not None}
        if not learned or not isinstance(self.method, LearnsTensors):
            return []
        return [{"params": [*learned.values()], "names": [*learned], "weight_decay": 0.0, **self.method.learning()}]

    def stage(self) -> dict[str, float]:
        """Return how tight the masks are: ``leak`` (the soft-mask coefficient), or ``n`` and ``m`` of the structure."""
        if not self.slots:
            return {}
        ours = (
            slot for slot, way in zip(self.slots, self.schedules, strict=True) if way.sparsity == self.schedule.sparsity
        )
        slot, found = next(ours, self.slots[0]), {}
        if self.schedule.soft:
            found["leak"] = slot.soft_coefficient
        if len(self.schedule.structures()) > 1 and (asked := slot.pattern.sparsity.n_of_m) is not None:
            n, m = asked
            found |= {"n": n if slot.kept < slot.mask.numel() else m, "m": m}
        return found

    def softness(self) -> dict[str, float]:
        """``leak_end``: what the last update still computed with of pruned weights, before the mask turned hard."""
        return (
            {"leak_end": self.schedule.soft_coefficient(self.total - 1, self.total)}
            if self.schedule.soft and self.slots
            else {}
        )

    # -- what is saved ----------------------------------------------------------------------------------------------

    def masks(self) -> dict[str, Tensor]:
        return {slot.name: slot.mask for slot in self.slots}

    def state_dict(self) -> dict:
        """Plain containers and tensors; masks as bool (the writer packs them)."""
        return {
            "carried_out": self.carried_out,
            "ledger": [[step, dict(kept)] for step, kept in self.ledger],
            "changed": self.changed,
            "early": list(self.early),
            "kept": {slot.layer.name: slot.kept for slot in self.slots},
            "made": self.made,
            "masks": self.masks(),
            "learned": {slot.name: slot.learned.detach() for slot in self.slots if slot.learned is not None},
            "states": {slot.name: dict(slot.state) for slot in self.slots if slot.state},
            "masters": {slot.name: slot.master for slot in self.slots if slot.master is not None},
            "biases": {slot.name: slot.bias_master for slot in self.slots if slot.bias_master is not None},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        self.written = False
        self.carried_out = state["carried_out"]
        self.ledger = [(step, dict(kept)) for step, kept in state["ledger"]]
        self.changed = state["changed"].to(self.changed.device)
        self.early = [tensor.to(self.changed.device, copy=True) for tensor in state.get("early", [])]
        self.made = state.get("made", 0)  # older checkpoints have none, and nothing that depends on it
        if self.carried_out:
            self._shape(self.made)
        for slot in self.slots:
            slot.kept = state["kept"][slot.layer.name]
            slot.mask.copy_(state["masks"][slot.name])  # into what is there: device and memory layout stay
            slot.state = {key: value.to(slot.mask.device) for key, value in state["states"].get(slot.name, {}).items()}
            if slot.master is not None:
                slot.master.copy_(state["masters"][slot.name])
            if slot.bias_master is not None:
                slot.bias_master.copy_(state["biases"][slot.name])
            if slot.learned is not None:
                slot.learned.copy_(state["learned"][slot.name])
        self.units.look()

    @torch.no_grad()
    def verify(self) -> None:
        """The effective weights, made again from master and mask, are the stored ones bit for bit; else RunFailed."""
        stored = [slot.param.data.clone() for slot in self.slots]
        self._write_effective()
        for slot, before in zip(self.slots, stored, strict=True):
            if not torch.equal(before, slot.param.data):
                raise RunFailed(f"checkpoint: {slot.name} is not what its mask gives — delete the checkpoint and rerun")


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _clear_state(optimizer: torch.optim.Optimizer, param: nn.Parameter, stays: Tensor) -> None:
    """Zero the optimiser's memory of weights that just left: momentum would bring them back in one step."""
    state = optimizer.state.get(param, {}).values()
    moments = [value for value in state if isinstance(value, Tensor) and value.shape == param.shape]
    masked(moments, [stays] * len(moments), moments)
