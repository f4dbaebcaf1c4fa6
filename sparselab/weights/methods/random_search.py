"""Random search: many masks are drawn and scored without training; the best one is trained."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.data_types import Classes
from sparselab.core.errors import Issue, RunFailed
from sparselab.core.options import Options
from sparselab.weights.capabilities import KnowsCounts, MeasuresFirst, Reports
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where
from sparselab.weights.whole_units import kept_units, silence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.weights.probe import Batch, Probe
    from sparselab.weights.slot import Slot, UpdateContext


@METHODS.register("random_search")
class RandomSearch(MeasuresFirst, KnowsCounts, Reports, Method):
    """Keep, of ``trials`` random masks, the one whose untrained network scores best (Farahani 2024, arXiv 2403.08265).

    The paper's space is nodes: ``sparsity=unit:0.9``; any other pattern is searched alike. Candidate t of a seed is the same
    whatever ``trials`` is and however weights were initialised, and candidate 1 is the mask of ``method=random``, so the best
    score cannot rise with ``trials``, and a searched network is paired with a random one. Scores are taken on copies, over the
    first ``examples`` training examples (batch norms see up to 500 at once). The examples after those measure how much of the
    advantage is not the search's own sample: ``train.held_first`` and ``train.held_best``.
    """

    class Options(Options):
        trials: int = Field(ge=1, description="masks that are drawn, at least 1")
        score: Literal["init_loss", "init_accuracy", "probe_loss"] = Field(
            description="init_loss, init_accuracy, or probe_loss (after probe_steps updates)"
        )
        examples: int = Field(
            ge=2,
            description="training examples that a mask is scored on (all, where there are fewer), at least 2",
        )
        probe_steps: int = Field(ge=0, description="SGD updates of a copy before probe_loss, at least 0")
        probe_lr: float = Field(gt=0, description="their learning rate, above 0")

    options: Options
    patterns = patterns_where(lambda pattern: pattern.prunes, whole=True)
    schedules = ("constant",)

    def issues(self, data: DataSpec) -> list[Issue]:
        o, found = self.options, []
        if o.score == "init_accuracy" and not isinstance(data.targets, Classes):
            problem = f"{data.name} has no classes"
            found.append(Issue("method.score=init_accuracy", problem, "write method.score=init_loss"))
        if o.score == "probe_loss" and not o.probe_steps:
            found.append(Issue("method.score=probe_loss", "no update comes before it", "write method.probe_steps=10"))
        if o.score != "probe_loss" and o.probe_steps:
            where = f"method.probe_steps={o.probe_steps}"
            found.append(
                Issue(where, f"method.score={o.score} is taken without updates", "write method.score=probe_loss")
            )
        return found

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        self.probe = probe

    def allocated(self, slots: list[Slot], kept: Mapping[str, int]) -> None:
        """Draw, score, choose."""
        import torch

        probe = self.probe

        def drawn(trial: int) -> dict[str, Tensor]:
            density = {slot.name: kept[slot.layer.name] / slot.mask.numel() for slot in slots}
            return {
                slot.name: slot.pattern.mask(numbers(probe.seed, slot, trial), density[slot.name]) for slot in slots
            }

        masks = drawn(0)
        searched, held = parted(probe, self.options.examples)
        scores = [self.rate(probe, slots, masks, searched)]
        best = 0
        for trial in range(1, self.options.trials):
            candidate = drawn(trial)
            scores.append(self.rate(probe, slots, candidate, searched))
            if scores[trial] < scores[best]:  # of equal scores the first
                best, masks = trial, candidate
        rest = [self.rate(probe, slots, each, held) for each in (drawn(0), masks)] if held else []
        found = [scores[0], scores[best], best + 1.0, *rest]
        if not all(map(isfinite, found)):
            problem = f"masks cannot be compared, method.score={self.options.score} is not finite"
            fix = "lower method.probe_lr" if self.options.probe_steps else "look at the initial weights"
            raise RunFailed(f"method=random_search: {problem} — {fix}")
        slots[0].state["search"] = torch.tensor(found, dtype=torch.float64)  # a resumed run does not search again
        self.chosen = masks
        del self.probe

    def rate(self, probe: Probe, slots: list[Slot], masks: Mapping[str, Tensor], batches: Sequence[Batch]) -> float:
        """Return the score of a sparse copy, lower is better: a mean loss, or the share of examples that it gets wrong.

        Args:
            probe: the network and its loss
            slots: the sparse layers
            masks: (*weight) bool by name
            batches: of training data
        """
        import torch

        network = probe.copy()
        sparsify(network, slots, masks)
        if self.options.score == "probe_loss":
            optimizer = torch.optim.SGD(network.parameters(), self.options.probe_lr)
            for step in range(self.options.probe_steps):
                optimizer.zero_grad()
                with torch.enable_grad():
                    probe.measured(network, batches[step % len(batches)], step).backward()
                optimizer.step()
                sparsify(network, slots, masks)
        measure = probe.wrong if self.options.score == "init_accuracy" else probe.measured
        total = sum(len(batch[0]) for batch in batches)
        return sum(float(measure(network, batch, i)) * len(batch[0]) for i, batch in enumerate(batches)) / total

    def remask(self, slot: Slot, kept: int, context: UpdateContext) -> Tensor:
        return self.chosen.pop(slot.name)

    def measures(self, slots: list[Slot]) -> dict[str, float]:
        return dict(zip(TOLD, slots[0].state["search"].tolist(), strict=False)) if slots else {}


TOLD = ("score_first", "score_best", "trial", "held_first", "held_best")
"""Names of what a search reports: the scores of candidate 1 and of the best, the best's number, both on held-out examples."""

CHUNK = 500
"""Examples that go through a network together while it is scored, or one more."""


def numbers(seed: int, slot: Slot, trial: int) -> Tensor:
    """Uniform numbers of the slot's shape, those of trial 0 being the ones of :meth:`UpdateContext.random`."""
    import torch

    from sparselab.core.seeds import derive_seed

    generator = torch.Generator().manual_seed(derive_seed(seed, "mask", slot.name, 0, *([trial] if trial else [])))
    return torch.rand(slot.param.shape, generator=generator).to(slot.param.device)


def parted(probe: Probe, examples: int) -> tuple[list[Batch], list[Batch]]:
    """The first ``examples`` of the first epoch of training in batches of about :data:`CHUNK`, and as many after them.

    No batch has a single example, of which batch norms know no statistics.
    """
    import torch

    from sparselab.weights.probe import in_parts

    whole: list[Batch] = []
    for batch in probe.loader():
        whole.append(batch)
        if sum(len(inputs) for inputs, _ in whole) >= 2 * examples:
            break
    inputs, targets = (torch.cat(part) for part in zip(*whole, strict=True))
    cuts = slice(examples), slice(examples, 2 * examples)
    first, after = (
        list(zip(inputs[cut].split(sizes), targets[cut].split(sizes), strict=True))
        for cut in cuts
        for sizes in [in_parts(len(inputs[cut]), CHUNK)]
    )
    alone = sum(len(inputs) for inputs, _ in after) == 1
    return first, [] if alone else after


def sparsify(network: nn.Module, slots: list[Slot], masks: Mapping[str, Tensor]) -> None:
    """Put masks on a copy of the network."""
    for slot in slots:
        network.get_parameter(slot.name).data.mul_(masks[slot.name])
        if slot.pattern.sparsity.whole:
            silence(network, slot.layer, kept_units(masks[slot.name]))
