"""A mask that another network found: lottery tickets, retraining with the same mask, fine-tuning of a pruned network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.options import off
from sparselab.weights.capabilities import FindsCounts, MeasuresFirst, RanksLayers, ReadsFiles
from sparselab.weights.method import METHODS, Method
from sparselab.weights.patterns.admitted import patterns_where

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.weights.probe import Probe
    from sparselab.weights.slot import Slot, UpdateContext


@METHODS.register("ticket")
class Ticket(MeasuresFirst, ReadsFiles, RanksLayers, FindsCounts, Method):
    """Keep the positions whose weights are largest in ``source``; train the network's own weights there, mask fixed.

    source: a network's weights file, or ``{cell: {…}}`` for the cell that makes it; null is the network's own weights as
    they are before the first update. Where the source is as sparse as is asked for, the mask is the source's own: its zeros
    rank last. With the initial weights of the source's seed it is a lottery ticket (Frankle & Carbin 2019, arXiv 1803.03635).

    spare: a layer of which a smaller fraction is zero was not pruned, and keeps all its weights (the fine-tuning script of
    arXiv 2310.06927 masks from a tenth on). The sparsity that is asked for then counts the zeros of the others alone.

    count: ``found`` keeps as many weights as the masks of ``targets.masks`` do, whatever ``sparsity`` asks for.
    """

    class Options(AnyOptions):
        source: str | None = Field(description="a .safetensors file, {cell: {…}}, or null for its own weights")
        count: Literal["asked", "found"] = off("asked", description="asked, or found: as many as given masks keep")
        spare: float = off(0.0, ge=0, le=1, description="layers with a smaller fraction of zeros stay whole, 0 to 1")

    options: Options
    patterns = patterns_where(lambda pattern: pattern.prunes, whole=True, shared=True)
    schedules = ("constant",)

    def files(self) -> dict[str, str]:
        return {"source": self.options.source} if self.options.source else {}

    def measured_in_vain(self) -> Issue | None:
        if self.options.source is not None:
            return Issue("method.source", "targets.masks names the mask, too", "leave one of them out")
        if self.options.spare:
            problem = "masks of a file say which layers stay whole"
            return Issue(f"method.spare={self.options.spare:g}", problem, "leave it out, or targets.masks")
        return None

    @property
    def finds_counts(self) -> bool:  # type: ignore[override]
        return self.options.count == "found"

    @property
    def ranks_layers(self) -> bool:  # type: ignore[override]
        return self.options.spare > 0

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        self.scores = self.sizes(slots)
        above_all = 2 * max(float(size.max()) for size in self.scores.values()) + 1
        for size in self.scores.values():
            if int((size == 0).sum()) < self.options.spare * size.numel():
                size.fill_(above_all)

    def sizes(self, slots: list[Slot]) -> dict[str, Tensor]:
        """|w| of the source, copied."""
        if self.options.source is None:
            return {slot.name: slot.dense.abs() for slot in slots}
        from safetensors import safe_open

        with safe_open(self.options.source, framework="pt") as file:
            return {slot.name: file.get_tensor(slot.name).abs().to(slot.mask.device) for slot in slots}

    def score(self, slot: Slot, context: UpdateContext) -> Tensor:
        return self.scores[slot.name]
