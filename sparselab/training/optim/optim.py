"""Optimisers and learning-rate schedules, as one group: a recipe is a pair of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.options import Options, off
from sparselab.core.points import point_of, update_of
from sparselab.core.registry import Registry
from sparselab.training.optim.prox import made
from sparselab.training.optim.retraining import ADAPTIVE, ALONE, RETRAINING, Past, Pretraining, issues, rate

if TYPE_CHECKING:
    import torch

    from sparselab.core.errors import Issue


class OptimOptions(Options):
    """Options of every recipe."""

    defaults_from: ClassVar[str] = "optim/_base"

    lr: float = Field(gt=0, description="peak learning rate, above 0")
    weight_decay: float = Field(ge=0, description="at least 0")
    decay_norm_and_bias: bool = Field(description="true or false: weight decay on 1-D parameters too")
    schedule: Literal["constant", "cosine", "linear", "step", "ft", "lrw", "slr", "clr", "llr", "allr"] = Field(
        description="constant, cosine, linear or step; of retraining: ft, lrw, slr, clr, llr or allr"
    )
    warmup: float = Field(ge=0, lt=1, description="fraction of the run with a linear warm-up, in [0, 1)")
    min_factor: float = Field(ge=0, le=1, description="last learning rate over the peak, in [0, 1]")
    cycles: int = Field(ge=1, description="how often the schedule runs through; 2 restarts it half-way")
    milestones: list[float] = Field(description="for schedule=step: fractions of the run, ascending")
    gamma: float = Field(gt=0, le=1, description="for schedule=step: factor at each milestone, in (0, 1]")
    label_smoothing: float = Field(ge=0, lt=1, description="in [0, 1)")
    prox: dict[str, Any] | None = off(
        None, description="null, or a proximal step after each update: {name: wgsef, weight: 1e-3, keep: 0.5}"
    )
    pretraining: Pretraining | None = off(
        None, description="for schedules of retraining: {length, schedule, …} of the training before, or null"
    )


class Optim:
    """A recipe. ``build`` makes the torch optimiser, ``factor`` the learning rate's factor at an update."""

    Options: ClassVar[type[OptimOptions]] = OptimOptions
    name: ClassVar[str] = ""
    blends: ClassVar[bool] = False
    """True if its torch optimiser has ``blends``: who may replace the first moment of which parameter."""
    keeps_zeros: ClassVar[bool] = False
    """True if a weight of zero stays zero while its gradients, and what the optimiser remembers of them, are zero.

    Not inherited."""

    def __init__(self, options: Any):
        self.options = options
        self.prox = made(options.prox)
        self.past: Past | None = None  # the rates of the training before, once its length in updates is known

    @property
    def remembers(self) -> bool:
        """True if its torch optimiser keeps a mean of past gradients."""
        return True

    @property
    def adapts(self) -> bool:
        """True if its rates depend on what pruning removes from the network (``cut`` of :meth:`factor`)."""
        return bool(self.options.schedule == ADAPTIVE)

    def look_back(self, per_epoch: int) -> None:
        """Work out the rates of the training before. per_epoch: updates of an epoch, 0 where it is not known."""
        before: Pretraining | None = self.options.pretraining
        point = None if before is None else point_of(before.length)
        if before is None or point is None or (not per_epoch and not point.isdigit()):
            return
        length = update_of(point, per_epoch)
        rates = [shape(before, step, length, before.schedule) for step in range(length)]
        self.past = Past(tuple(rates), int(before.warmup * length))

    def issues(self, total: int, masks: list[int] | None) -> list[Issue]:
        """Return the issues of its schedule in ``total`` updates. masks: when masks are made; None where none are."""
        o = self.options
        length = len(self.past.rates) if self.past else None
        return issues(o.schedule, o.pretraining, o.min_factor, length, int(total / o.cycles), masks)

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimiser.

        Args:
            groups: of parameters, as torch takes them; each has its own ``weight_decay``

        Returns:
            The torch optimiser, with ``lr`` at its peak.
        """
        raise NotImplementedError

    def build(self, network: torch.nn.Module, beside: Iterable[dict[str, Any]] = ()) -> torch.optim.Optimizer:
        """Two groups: with weight decay, and (norms, biases, other 1-D parameters) without unless asked for.

        beside: further groups, of what is trained besides the network. One may have an ``lr``, a ``weight_decay`` and
        the name of a ``schedule`` of its own.
        """
        parameters = [p for p in network.parameters() if p.requires_grad]
        spared = [p for p in parameters if p.ndim < 2 and not self.options.decay_norm_and_bias]
        rest = [p for p in parameters if p.ndim >= 2 or self.options.decay_norm_and_bias]
        groups = [{"params": rest, "weight_decay": self.options.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        optimizer = self.make([group for group in (*groups, *beside) if group["params"]])
        # A fused optimiser would unscale gradients inside its step and skip it by itself: the sparsifier would see
        # scaled gradients, and hooks of updates that did not happen. With this the loss scaler does both, for all.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        # Said by the class itself: one that inherits may step in another way.
        optimizer.keeps_zeros = vars(type(self)).get("keeps_zeros", False)  # type: ignore[attr-defined]
        return optimizer

    def factor(self, step: int, total: int, schedule: str | None = None, cut: float | None = None) -> float:
        """Return the learning rate over its peak for update ``step``.

        Args:
            step: updates done, from 0
            total: updates of the run
            schedule: another shape than the options'
            cut: what pruning removed (:func:`~sparselab.training.optim.retraining.relative_drop`), for a recipe that adapts

        Returns:
            From 0 to 1.
        """
        name = schedule or self.options.schedule
        if name not in RETRAINING:
            return shape(self.options, step, total, name)
        length = max(total, 1) / self.options.cycles
        within = min(step, max(total - 1, 0)) % length
        assert self.past is not None or name in ALONE
        return rate(name, int(within), int(length), self.options.warmup, self.past or Past((1.0,)), cut)


def shape(o: OptimOptions | Pretraining, step: int, total: int, schedule: str) -> float:
    """Return the learning rate over its peak for update ``step`` (from 0) of ``total``."""
    total = max(total, 1)
    length = total / o.cycles
    at = (min(step, total - 1) % length) / length
    if at < o.warmup:
        return (at * length + 1) / (o.warmup * length + 1)
    at = (at - o.warmup) / (1 - o.warmup)
    factor = {
        "constant": 1.0,
        "linear": 1 - at,
        "cosine": (1 + math.cos(math.pi * at)) / 2,
        "step": o.gamma ** sum(at >= m for m in o.milestones),
    }[schedule]
    return o.min_factor + (1 - o.min_factor) * factor


OPTIMS: Registry[Optim] = Registry("optim", "sparselab.training.optim")


@OPTIMS.register("sgd")
class SGD(Optim):
    """Stochastic gradient descent with (Nesterov) momentum."""

    keeps_zeros = True

    class Options(OptimOptions):
        momentum: float = Field(ge=0, lt=1, description="in [0, 1)")
        nesterov: bool = Field(description="true or false")
        maximise: bool = off(False, description="true or false: climb the loss (weight decay still shrinks)")

    options: Options

    @property
    def remembers(self) -> bool:
        return self.options.momentum > 0

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        o = self.options
        return torch.optim.SGD(
            groups,
            lr=o.lr,
            momentum=o.momentum,
            nesterov=o.nesterov and o.momentum > 0,
            maximize=o.maximise,
            foreach=True,
        )


@OPTIMS.register("adamw")
class AdamW(Optim):
    """Adam with decoupled weight decay."""

    keeps_zeros = True

    class Options(OptimOptions):
        beta1: float = Field(ge=0, lt=1, description="in [0, 1)")
        beta2: float = Field(ge=0, lt=1, description="in [0, 1)")
        eps: float = Field(gt=0, description="above 0")

    options: Options

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        o = self.options
        # The fused kernel is the fast one on CPU.
        on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
        kernel: dict[str, Any] = {"fused": True} if on_cpu else {"foreach": True}
        return torch.optim.AdamW(groups, lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, **kernel)
