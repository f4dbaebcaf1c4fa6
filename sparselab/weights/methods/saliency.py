"""Masks from one look at the data before training: SNIP and GraSP, as masks or as densities of layers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.data_types import Classes
from sparselab.core.errors import Issue
from sparselab.core.options import Options, off
from sparselab.weights.capabilities import KeepsByChance, MeasuresFirst
from sparselab.weights.method import METHODS, Method

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec
    from sparselab.weights.probe import Batch, Probe
    from sparselab.weights.slot import Slot, UpdateContext


class SaliencyOptions(Options):
    """Options of every measurement before training."""

    batches: int = Field(ge=1, description="training batches to measure on, at least 1")
    per_class: int | None = Field(ge=1, description="examples of each class in place of batches; null: batches")
    reinitialise: Literal["none", "xavier"] = Field(description="none or xavier: weights to measure at")
    halves: Literal["mixed", "classes"] = off(
        "mixed", description="mixed, or classes: examples of per_class sorted by class and measured on in two halves"
    )
    positions: Literal["scores", "random", "bernoulli"] = Field(
        description="scores, random, or bernoulli: each weight by itself"
    )


class Saliency(MeasuresFirst, KeepsByChance, Method):
    """Base: scores are measured once, on a copy, before the first mask; the mask never changes afterwards.

    ``reinitialise=xavier`` measures at freshly drawn weights instead of the network's own. ``positions=random`` takes
    from the scores only how many weights each layer keeps (``distribution=global``), and draws which: the "SNIP ratio"
    and "GraSP ratio" of arXiv 2202.02643. ``positions=bernoulli`` takes only the layers' densities and keeps each weight
    by itself, as the released code of that paper does. ``halves=classes`` sorts the examples of ``per_class`` by class and
    measures on the first half of the classes and then on the second, as that code does: batch norms see one half at a time.
    The loss is the task's, without extra losses.
    """

    Options = SaliencyOptions
    options: SaliencyOptions
    schedules = ("constant",)

    @property
    def by_chance(self) -> str | None:  # type: ignore[override]
        return "method.positions=random" if self.options.positions == "bernoulli" else None

    @property
    def by_score(self) -> bool:
        return self.options.positions == "scores"

    def issues(self, data: DataSpec) -> list[Issue]:
        if self.options.per_class is None or isinstance(data.targets, Classes):
            return []
        where = f"method.per_class={self.options.per_class}"
        return [Issue(where, f"{data.name} has no classes of examples", "write method.per_class=null")]

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        network = probe.copy()
        if self.options.reinitialise == "xavier":
            probe.reinitialise(network, {slot.name for slot in slots})
        network.requires_grad_(False)
        weights = [network.get_parameter(slot.name).requires_grad_() for slot in slots]
        if self.options.per_class is None:
            batches = probe.batches(self.options.batches)
        else:
            batches = probe.per_class(self.options.per_class, self.options.halves == "classes")
        scores = self.measure(probe, network, weights, batches)
        self.scores = {slot.name: score.detach() for slot, score in zip(slots, scores, strict=True)}

    def measure(self, probe: Probe, network, weights: list, batches: list[Batch]) -> list[Tensor]:
        """A score for every weight; the largest are kept."""
        raise NotImplementedError

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return self.scores[slot.name]

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        score = self.scores.pop(slot.name)  # used up: no second copy of the network stays in memory
        if self.by_chance:
            return context.bernoulli(slot, kept)
        if self.options.positions == "random":
            score = context.random(slot)
        return slot.pattern.mask(score, kept / slot.mask.numel())


@METHODS.register("snip")
class SNIP(Saliency):
    """Connection sensitivity |w dL/dw| (Lee et al. 2019, arXiv 1810.02340, eq. 6 up to its normalisation)."""

    def measure(self, probe, network, weights, batches):
        gradients = probe.gradients(network, weights, batches)
        return [(weight * gradient).abs() for weight, gradient in zip(weights, gradients, strict=True)]


@METHODS.register("grasp")
class GraSP(Saliency):
    """Gradient signal preservation (Wang et al. 2020, arXiv 2002.07376): remove the largest -w * Hg.

    H is the Hessian and g the gradient of the loss in the sparse weights, both over all examples, with the logits
    divided by ``temperature``.
    """

    class Options(SaliencyOptions):
        batches: int = Field(ge=1, description="training batches to measure on, at least 1")
        temperature: float = Field(gt=0, description="what the logits are divided by, above 0")

    options: Options

    def measure(self, probe, network, weights, batches):
        at = self.options.temperature
        gradient = probe.gradients(network, weights, batches, at)
        products = probe.gradients(network, weights, batches, at, along=gradient)
        return [weight * product for weight, product in zip(weights, products, strict=True)]
