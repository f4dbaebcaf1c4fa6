"""A search at work: the gradient of the operations' weights, one step of theirs before each update of the network's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparselab.training.loop.lightning import scaler_of

if TYPE_CHECKING:
    from sparselab.training.loop.loader import RunLoader
    from sparselab.training.loop.module import TaskModule
    from sparselab.training.searches.darts import Darts
    from sparselab.training.tasks.task import Batch
    from sparselab.weights.sparsifier import Sparsifier

RADIUS = 0.01
"""Length of the step of the finite difference (arXiv 1806.09055, section 2.3, footnote 2)."""

Loss = Callable[[], Tensor]
Masks = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


@dataclass
class Searched:
    """The parts of a run that a search works on.

    choices: the weights of operations, buffers of the network. pruned: the weights that a sparse copy has fewer of.
    loader: a validation batch for each update.
    """

    task: TaskModule
    choices: dict[str, Tensor]
    pruned: list[Tensor]
    sparsifier: Sparsifier
    loader: RunLoader
    precision: Any


class Architect:
    """Adam on the weights of operations. Its state, and the place in the validation data, are in checkpoints."""

    def __init__(self, options: Darts.Options, searched: Searched):
        self.options = options
        self.searched = searched
        self.choices = list(searched.choices.values())
        self.optimizer = torch.optim.Adam(
            self.choices, lr=options.lr, betas=(options.beta1, options.beta2), weight_decay=options.weight_decay
        )
        self.batches: Iterator[Batch] | None = None

    def step(self, update: int, batch: Batch, trainer: Any) -> None:
        """Move the weights of operations once.

        Args:
            update: updates of the network's weights that are done
            batch: the training batch of the update to come, tensors with the batch as first axis
            trainer: Lightning's, whose optimiser is of the network's weights
        """
        if self.batches is None:
            self.searched.loader.start = update
            self.batches = iter(self.searched.loader)
        held_out = tuple(part.to(batch[0].device, non_blocking=True) for part in next(self.batches))
        scaler = scaler_of(trainer)
        gradients = self.gradients(batch, held_out, trainer.optimizers[0], scaler.get_scale() if scaler else 1.0)
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            if scaler is None:
                raise FloatingPointError("the gradient of the operations' weights is not finite")
            return
        for choice, gradient in zip(self.choices, gradients, strict=True):
            choice.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(
        self, batch: Batch, held_out: Batch, optimizer: torch.optim.Optimizer, scale: float = 1.0
    ) -> list[Tensor]:
        """The gradient of each table of operations' weights, (edges, operations).

        Args:
            batch: a training batch, tensors with the batch as first axis
            held_out: a validation batch, likewise
            optimizer: of the network's weights; a look ahead is a step of it
            scale: factor of losses, so that half precision does not lose their gradients
        """
        task, precision = self.searched.task, self.searched.precision

        def loss_of(examples: Batch) -> Loss:
            own = task.task.batch(examples)

            def loss() -> Tensor:
                with precision.forward_context():
                    return scale * task.criterion(task.family.logits(task.network, own[0]), own)

            return loss

        weights, decays, momenta, rate = _steps(optimizer) if self.options.unrolled else ([], [], [], 0.0)
        if not self.options.unrolled:
            weights = self.searched.pruned if self.options.sparsity else []
        with task.aside(dense=False), requiring(self.choices):
            found = looked_ahead(
                loss_of(batch),
                loss_of(held_out),
                weights,
                self.choices,
                rate,
                decays,
                momenta,
                self._masks(weights),
                scale,
            )
        return [gradient / scale for gradient in found]

    def _masks(self, weights: Sequence[Tensor]) -> Masks:
        """The masks of the copy that is looked at: those in force, else by magnitude where the options say how many go."""
        there = {id(slot.param): slot.mask for slot in self.searched.sparsifier.slots}
        made = {id(weight) for weight in self.searched.pruned} - there.keys() if self.options.sparsity else set()

        def masks(values: Sequence[Tensor]) -> list[Tensor | None]:
            return [
                smaller_away(value, self.options.sparsity or 0.0) if id(weight) in made else there.get(id(weight))
                for weight, value in zip(weights, values, strict=True)
            ]

        return masks

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def smaller_away(weight: Tensor, share: float) -> Tensor:
    """The mask of a layer without the ``int(share * size)`` smallest by magnitude; of equal ones the earlier go first.

    Args:
        weight: of any shape
        share: in [0, 1)

    Returns:
        (*weight) bool, True where a weight stays.
    """
    gone = floor(share * weight.numel() + 1e-9)
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.detach().abs().flatten().argsort(stable=True)[:gone]] = False
    return mask.view(weight.shape)


def looked_ahead(
    train_loss: Loss,
    held_out_loss: Loss,
    weights: Sequence[Tensor],
    choices: Sequence[Tensor],
    rate: float,
    decays: Sequence[float] = (),
    momenta: Sequence[Tensor | None] = (),
    masks: Masks | None = None,
    scale: float = 1.0,
) -> list[Tensor]:
    """The gradient of the held-out loss at the weights after one step, as a function of the choices.

    With w' = m (w - rate (momentum + grad L(w, a) + decay w)) for a mask m: grad_a L'(w', a) minus rate times the derivative of
    grad_a L along m grad_w' L', by a symmetric finite difference (arXiv 1806.09055, equations 7 and 8). At a rate of 0 this is
    grad_a L'(m w, a). Weights are as before afterwards, to the bit.

    Args:
        train_loss: computes the training loss at the values that weights and choices have
        held_out_loss: computes the held-out loss, likewise
        weights: leaves of any shapes
        choices: leaves of any shapes, requiring gradients
        rate: of the step; at 0 the training loss is not computed
        decays: of each weight
        momenta: what is added to each gradient, of its shape, or None
        masks: for values of the weights, of their shapes, the mask of each, bool, or None; left out: none
        scale: factor that both losses have

    Returns:
        A tensor of each choice's shape.
    """
    kept = [weight.detach().clone() for weight in weights]
    ahead = kept
    if rate:
        slopes = mean_of_ranks(_gradients(train_loss(), weights))
        ahead = [
            value - rate * (slope / scale + decay * value + (0 if momentum is None else momentum))
            for value, slope, decay, momentum in zip(kept, slopes, decays, momenta, strict=True)
        ]
    there = masks(ahead) if masks is not None else [None] * len(ahead)
    copy = [value if mask is None else value * mask for value, mask in zip(ahead, there, strict=True)]
    with holding(weights, copy, kept):
        found = mean_of_ranks(_gradients(held_out_loss(), [*choices, *(weights if rate else ())]))
    first, direction = found[: len(choices)], found[len(choices) :]
    if not rate:
        return first
    direction = [slope if mask is None else slope * mask for slope, mask in zip(direction, there, strict=True)]
    length = float(torch.linalg.vector_norm(torch.stack([slope.float().norm() for slope in direction])))
    if not length:
        return first
    step = RADIUS / length
    sides = []
    for sign in (1, -1):
        moved = [value + sign * step * slope for value, slope in zip(kept, direction, strict=True)]
        with holding(weights, moved, kept):
            sides.append(mean_of_ranks(_gradients(train_loss(), choices)))
    return [own - rate * (plus - minus) / (2 * step * scale) for own, plus, minus in zip(first, *sides, strict=True)]


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of each input; zero where the loss does not depend on it."""
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    return [torch.zeros_like(own) if slope is None else slope for own, slope in zip(inputs, found, strict=True)]


@contextmanager
def holding(weights: Sequence[Tensor], values: Sequence[Tensor], after: Sequence[Tensor]) -> Iterator[None]:
    """Give ``weights`` other ``values`` inside, tensors of their shapes, and those of ``after`` at the end."""
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, after, strict=True):
                weight.copy_(value)


@contextmanager
def requiring(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside, ``tensors`` (leaves of any shape) require gradients."""
    for tensor in tensors:
        tensor.requires_grad_(True)
    try:
        yield
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)


def mean_of_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """The mean of ``tensors`` (any shapes) over all processes; each process has a share of every batch."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()
    return tensors


def _steps(
    optimizer: torch.optim.Optimizer,
) -> tuple[list[Tensor], list[float], list[Tensor | None], float]:
    """(weights, weight decay of each, what momentum adds to each, learning rate) of the next step of SGD.

    Nesterov's step, ``lr ((1 + mu) gradient + mu^2 buffer)``, is one of ``lr (1 + mu)`` with ``mu^2 / (1 + mu)`` of the buffer.
    """
    weights, decays, momenta = [], [], []
    first = optimizer.param_groups[0]
    over = 1 + first["momentum"] if first["nesterov"] else 1.0
    for group in optimizer.param_groups:
        share = group["momentum"] ** 2 / over if group["nesterov"] else group["momentum"]
        for weight in group["params"]:
            buffer = optimizer.state.get(weight, {}).get("momentum_buffer")
            weights.append(weight)
            decays.append(group["weight_decay"])
            momenta.append(None if buffer is None else share * buffer)
    return weights, decays, momenta, over * float(first["lr"])
