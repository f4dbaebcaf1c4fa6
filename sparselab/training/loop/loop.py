"""The run as Lightning sees it: one callback that says, in order, what happens around an optimiser update.

The whole run is one Lightning epoch (the loader knows its own epochs), and validation is ours: resuming then means going
on at a batch index, with no loop state to reconstruct. Randomness is addressed (`sparselab.core.seeds`), so nothing
else is restored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.distributed as dist

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed, seed_torch
from sparselab.storage.tensors import pack_masks, unpack_masks
from sparselab.training.loop.lightning import pl
from sparselab.training.optim.retraining import relative_drop
from sparselab.weights.capabilities import alternating_update

if TYPE_CHECKING:
    from sparselab.training.loop.ema import EMA
    from sparselab.training.loop.spread import Spread
    from sparselab.training.optim.prox import Prox
    from sparselab.training.removals.torch_side.remover import Remover
    from sparselab.training.scenarios.torch_side.course import Course
    from sparselab.training.searches.torch_side.architect import Architect
    from sparselab.weights.probe import Probe
    from sparselab.weights.sparsifier import Sparsifier


class Observer(Protocol):
    """Something that looks at the network between two updates. May keep state; must not change a result."""

    def after_update(self, loop: Loop, step: int) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class Loop(pl.Callback):
    """Puts the sparsifier around each optimiser update and calls the observers after it."""

    def __init__(
        self,
        sparsifier: Sparsifier,
        seed: int,
        observers: list[Observer],
        ema: EMA | None = None,
        probe: Probe | None = None,
        edit: Callable[[], None] = lambda: None,
        spread: Spread | None = None,
        begin: Callable[[torch.nn.Module], None] = lambda network: None,
        prox: Prox | None = None,
        course: Course | None = None,
        remover: Remover | None = None,
        architect: Architect | None = None,
    ):
        self.sparsifier = sparsifier
        self.seed = seed
        self.observers = observers
        self.ema = ema
        self.probe = probe
        self.edit = edit
        self.spread = spread
        self.begin = begin
        self.prox = prox
        self.course = course
        self.remover = remover
        self.architect = architect
        self.kept_by_losses: dict[str, Any] = {}  # from a checkpoint, until the losses are prepared
        self.batches = 0  # micro-batches handed out so far
        self.losses: list[torch.Tensor] = []  # of the micro-batches of the update under way
        self.resumed = False
        self.trainer: pl.Trainer = None  # type: ignore[assignment]
        self.task: Any = None

    # -- Lightning's hooks, in the order in which they fire ----------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, task: Any) -> None:
        """Once the network, and what a checkpoint says of the masks, is in place; also where no update is left."""
        self.trainer, self.task = trainer, task
        _check_equal(
            self.batches, "checkpoint: {} resume elsewhere than rank 0 — keep runs_dir where every rank sees it"
        )
        if self.resumed:
            if task.freezes:
                self.sparsifier.refresh()  # a checkpoint has no frozen weights, and those that were given know no mask
            self.sparsifier.verify()
        for loss in task.losses:
            loss.prepare(task)
            if loss.name in self.kept_by_losses:
                loss.load(self.kept_by_losses[loss.name])
        if not self.resumed:
            if trainer.is_global_zero:
                self.begin(task.network)
            before = standing(task.network, self.sparsifier) if task.optim.adapts else None
            self.sparsifier.start(self.probe)
            if before:
                after = standing(task.network, self.sparsifier)
                task.cut = relative_drop(before.energy, after.energy, 1 - after.left / max(before.left, 1))
            self.edit()
            if self.ema:
                self.ema.start()
        if task.adapter:
            task.adapter.begin(self.resumed)
        check_masks_agree(self.sparsifier, trainer.global_step)

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        if self.resumed:
            laid_as_parameters(trainer.optimizers[0])
        elif task.cut is not None:
            task.begin_rates()
        trainer.optimizers[0].register_step_post_hook(self._after_raw_step)
        self.sparsifier.attach(trainer.optimizers[0])

    def on_train_batch_start(self, trainer: pl.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        if self.architect and self.batches % trainer.accumulate_grad_batches == 0:
            seed_torch(derive_seed(self.seed, "architect", self.batches, trainer.global_rank))
            self.architect.step(self.batches // trainer.accumulate_grad_batches, batch, trainer)
        seed_torch(derive_seed(self.seed, "batch", self.batches, trainer.global_rank))
        task.begin(self.batches)
        self.sparsifier.before_forward(trainer.global_step + 1)

    def on_before_optimizer_step(self, trainer: pl.Trainer, task: Any, optimizer: Any) -> None:
        self.sparsifier.before_step(trainer.global_step + 1, optimizer)
        task.family.constrain_gradients(task.network)
        if self.spread:
            self.spread.look(trainer.global_step + 1)
        if self.prox and self._moves_weights(trainer.global_step + 1):
            self.prox.before(trainer.global_step + 1, task.steps)

    def _after_raw_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Fires inside the raw optimiser's step, after the update. Not at all when the loss scaler skips it."""
        self.task.family.constrain(self.task.network)
        if self.prox and self._moves_weights(self.trainer.global_step + 1):
            self.prox.after(optimizer.param_groups[0]["lr"], self.trainer.global_step + 1, self.task.steps)
        self.sparsifier.after_step(self.trainer.global_step + 1, optimizer)
        if self.spread:
            self.spread.keep()
        if self.ema:
            self.ema.update()

    def _moves_weights(self, step: int) -> bool:
        """False for an update of a method on two levels in which weights rest."""
        return alternating_update(self.sparsifier.method, step, self.task.steps).weights

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.sparsifier.unswap()
        self.batches += 1
        self.losses.append(task.last_loss)
        if self.batches % trainer.accumulate_grad_batches == 0:
            if self.course:
                self.course.after_update(self, trainer.global_step)
            if self.remover:  # by batches: a step that was skipped took its examples, too
                self.remover.after_update(self.batches // trainer.accumulate_grad_batches)
            for observer in self.observers:
                observer.after_update(self, trainer.global_step)
            self.losses.clear()

    # -- what a checkpoint holds beside Lightning's own state --------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        sparse = self.sparsifier.state_dict()
        return {
            "batches": self.batches,
            "sparsifier": {**sparse, "masks": pack_masks(sparse["masks"])},
            "ema": self.ema.state() if self.ema else {},
            "spread": self.spread.state() if self.spread else {},
            "observers": [observer.state() for observer in self.observers],
            **({"course": self.course.state()} if self.course else {}),
            **({"remover": self.remover.state()} if self.remover else {}),
            **({"architect": self.architect.state()} if self.architect else {}),
            **({"losses": states} if (states := self._losses()) else {}),
        }

    def _losses(self) -> dict[str, Any]:
        """Return the state of extra losses that keep any, by name."""
        states = {loss.name: loss.state() for loss in self.task.losses} if self.task else {}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resumed = True
        self.batches = state["batches"]
        sparse = state["sparsifier"]
        self.sparsifier.load_state_dict({**sparse, "masks": unpack_masks(sparse["masks"])})
        if self.ema:
            self.ema.load(state["ema"])
        if self.spread and state.get("spread"):  # older checkpoints have none
            self.spread.load(state["spread"])
        for observer, kept in zip(self.observers, state["observers"], strict=True):
            observer.load(kept)
        if self.course:
            self.course.load(state["course"])
        if self.remover:
            self.remover.load(state["remover"])
        if self.architect:
            self.architect.load(state["architect"])
        self.kept_by_losses = state.get("losses", {})


class Standing(NamedTuple):
    """energy: squared norm of all weights and biases. left: weights in sparse layers that are not zero."""

    energy: float
    left: int


@torch.no_grad()
def standing(network: torch.nn.Module, sparsifier: Sparsifier) -> Standing:
    """Return what a network weighs, for what pruning takes away from it."""
    energy = sum(float(p.double().square().sum()) for p in network.parameters())
    return Standing(energy, sum(int(torch.count_nonzero(slot.param)) for slot in sparsifier.slots))


def check_masks_agree(sparsifier: Sparsifier, step: int) -> None:
    """All ranks hold the same masks, by checksum; anything else is fatal. Nothing to do in one process."""
    if not (sparsifier.slots and many_ranks()):
        return
    digest = hashlib.sha256()
    for name, mask in sorted(sparsifier.masks().items()):
        digest.update(name.encode())
        digest.update(mask.cpu().numpy().tobytes())
    _check_equal(
        digest.hexdigest(), f"step {step}: masks of {{}} differ from rank 0's — the run is stopped, please report it"
    )


def many_ranks() -> bool:
    """Return True where several processes train one network."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _check_equal(value: object, message: str) -> None:
    """Collective. RunFailed, on every rank, where ``value`` is not the same on all; ``message`` takes who differs."""
    if not many_ranks():
        return
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mine = torch.tensor(list(hashlib.sha256(str(value).encode()).digest()), dtype=torch.uint8, device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    different = [str(rank) for rank, other in enumerate(everyone) if not torch.equal(other, everyone[0])]
    if different:
        raise RunFailed(message.format(f"rank {', '.join(different)}"))


def laid_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give tensors of an optimiser's state the memory layout of their parameters, as they had it when they were made.

    A checkpoint's tensors are contiguous. Beside a parameter that is not (channels_last), elementwise kernels take another
    path, whose last bits differ.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
